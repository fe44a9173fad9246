"""Patch merging: neighbors become one token (Swin Transformer, section 3.1)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, cast

from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.by_rows import ByRows
from hierarch.nn.layers import build_norm
from hierarch.nn.padding import pad_to_multiple, patch_rows
from hierarch.norms.layer_norm import LayerNormSpec
from hierarch.spec.base import Flag, Side
from hierarch.spec.grid import AXES, Sides, ceil_div, per_axis, tokens
from hierarch.spec.parts import DownsampleSpec, NormSpec, linear_params
from hierarch.spec.registry import PartOf, register


@register
class PatchMergingSpec(DownsampleSpec):
    """Concatenates 2x2 tokens into one of four times the width, then a norm and a linear layer."""

    formula: ClassVar[str] = "KC·C'·N/K + the norm's; K = tokens that become one, 4"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.14030, section 3.1"

    type: Literal["patch_merging"] = "patch_merging"
    """Patch merging."""
    merge_size: Annotated[int | Sides, Side(1, 16, axes=AXES)] = 2
    """Tokens along a side that become one, or a list of one per axis: [1, 2, 2] merges the frames
    of a video, and leaves their number."""
    norm: Annotated[NormSpec, PartOf("norm")] = LayerNormSpec()
    """Applied to the concatenated tokens."""
    norm_last: Flag = False
    """The norm after the projection, as in Swin V2, rather than before it."""

    def stride(self) -> Sides:
        return per_axis(self.merge_size)

    def grid(self, grid: Sides) -> Sides:
        return tuple(map(ceil_div, grid, self.stride()))

    def macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        merged, normed = self.grid(grid), self._normed_dim(in_dim, dim)
        wide = tokens(self.stride()) * in_dim
        return tokens(merged) * wide * dim + self.norm.macs(dim=normed, grid=merged)

    def _normed_dim(self, in_dim: int, dim: int) -> int:
        return dim if self.norm_last else tokens(self.stride()) * in_dim

    def padding_macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        padded = tokens(self.stride()) * tokens(self.grid(grid))
        return self.macs(in_dim=in_dim, dim=dim, grid=grid) * (padded - tokens(grid)) // padded

    def params(self, *, in_dim: int, dim: int) -> int:
        norm = self.norm.params(dim=self._normed_dim(in_dim, dim))
        return linear_params(tokens(self.stride()) * in_dim, dim, bias=False) + norm

    def build(self, in_dim: int, dim: int) -> nn.Module:
        norm = build_norm(self.norm, self._normed_dim(in_dim, dim))
        return PatchMerging(in_dim, dim, self.stride(), norm, norm_last=self.norm_last)


class PatchMerging(ByRows):
    """(B, H, W, in_dim) -> (B, ceil(H / P), ceil(W / P), dim)."""

    def __init__(
        self, in_dim: int, dim: int, merge_size: Sides, norm: nn.Module, *, norm_last: bool
    ) -> None:
        super().__init__()
        self.merge_size = merge_size
        self.rows = merge_size[0]
        self.norm = norm
        self.norm_last = norm_last
        self.reduction = init.linear(tokens(merge_size) * in_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.by_rows(self, x)

    def transform(self, x: Tensor) -> Tensor:
        # column-major, as published: (0, 0), (1, 0), (0, 1), (1, 1)
        x = pad_to_multiple(x, self.merge_size)
        x = patch_rows(x, self.merge_size, channels_first=False)
        if self.norm_last:
            return cast(Tensor, self.norm(functional.linear(self.reduction, x)))
        return functional.linear(self.reduction, self.norm(x))
