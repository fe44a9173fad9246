"""Patch merging: 2x2 neighbors become one token (Swin Transformer, section 3.1)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, cast

from einops import rearrange
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.by_rows import ByRows
from hierarch.nn.layers import build_norm
from hierarch.nn.padding import pad_to_multiple
from hierarch.norms.layer_norm import LayerNormSpec
from hierarch.spec.base import Flag
from hierarch.spec.grid import Pair, ceil_div, tokens
from hierarch.spec.parts import DownsampleSpec, NormSpec, linear_params
from hierarch.spec.registry import PartOf, register


@register
class PatchMergingSpec(DownsampleSpec):
    """Concatenates 2x2 tokens into one of four times the width, then a norm and a linear layer."""

    formula: ClassVar[str] = "4C·C'·N/4 + the norm's"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.14030, section 3.1"

    type: Literal["patch_merging"] = "patch_merging"
    """Patch merging."""
    norm: Annotated[NormSpec, PartOf("norm")] = LayerNormSpec()
    """Applied to the concatenated tokens."""
    norm_last: Flag = False
    """The norm after the projection, as in Swin V2, rather than before it."""

    def stride(self) -> Pair:
        return (2, 2)

    def grid(self, grid: Pair) -> Pair:
        h, w = grid
        return ceil_div(h, 2), ceil_div(w, 2)

    def macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        merged, normed = self.grid(grid), self._normed_dim(in_dim, dim)
        return tokens(merged) * 4 * in_dim * dim + self.norm.macs(dim=normed, grid=merged)

    def _normed_dim(self, in_dim: int, dim: int) -> int:
        return dim if self.norm_last else 4 * in_dim

    def padding_macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        padded = 4 * tokens(self.grid(grid))
        return self.macs(in_dim=in_dim, dim=dim, grid=grid) * (padded - tokens(grid)) // padded

    def params(self, *, in_dim: int, dim: int) -> int:
        norm = self.norm.params(dim=self._normed_dim(in_dim, dim))
        return linear_params(4 * in_dim, dim, bias=False) + norm

    def build(self, in_dim: int, dim: int) -> nn.Module:
        norm = build_norm(self.norm, self._normed_dim(in_dim, dim))
        return PatchMerging(in_dim, dim, norm=norm, norm_last=self.norm_last)


class PatchMerging(ByRows):
    """(B, H, W, in_dim) -> (B, ceil(H / 2), ceil(W / 2), dim)."""

    def __init__(self, in_dim: int, dim: int, *, norm: nn.Module, norm_last: bool) -> None:
        super().__init__()
        self.rows = 2
        self.norm = norm
        self.norm_last = norm_last
        self.reduction = init.linear(4 * in_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.by_rows(self, x)

    def transform(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, (2, 2))
        # column-major, as published: (0, 0), (1, 0), (0, 1), (1, 1)
        x = rearrange(x, "b (h p) (w q) c -> b h w (q p c)", p=2, q=2)
        if self.norm_last:
            return cast(Tensor, self.norm(functional.linear(self.reduction, x)))
        return functional.linear(self.reduction, self.norm(x))
