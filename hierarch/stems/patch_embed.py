"""Patch embedding: a convolution whose kernel is its stride (Swin Transformer, section 3.1)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.by_rows import ByRows
from hierarch.nn.convolution import convolution
from hierarch.nn.layers import build_norm
from hierarch.nn.padding import pad_to_multiple
from hierarch.norms.layer_norm import LayerNormSpec
from hierarch.spec.base import Side
from hierarch.spec.grid import AXES, Sides, ceil_div, per_axis, tokens
from hierarch.spec.parts import NormSpec, StemSpec, linear_params
from hierarch.spec.registry import PartOf, register


@register
class PatchEmbedSpec(StemSpec):
    """Cuts the image into patches and projects each one to the first stage's width."""

    formula: ClassVar[str] = "P²·in_chans·NC + the norm's"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.14030, section 3.1"

    type: Literal["patch_embed"] = "patch_embed"
    """Patch embedding."""
    patch_size: Annotated[int | Sides, Side(1, 256, axes=AXES)] = 4
    """Pixels along a side of a patch, or a list of one per axis: [height, width]."""
    in_chans: Annotated[int, Strict(), Field(ge=1, le=1024)] = 3
    """Channels of the image."""
    norm: Annotated[NormSpec, PartOf("norm")] | None = LayerNormSpec()
    """Applied to each token after the projection; null for none."""

    def stride(self) -> Sides:
        return per_axis(self.patch_size)

    def grid(self, size: Sides) -> Sides:
        return tuple(map(ceil_div, size, self.stride()))

    def macs(self, *, dim: int, size: Sides) -> int:
        grid = self.grid(size)
        norm = self.norm.macs(dim=dim, grid=grid) if self.norm else 0
        return tokens(grid) * tokens(self.stride()) * self.in_chans * dim + norm

    def padding_macs(self, *, dim: int, size: Sides) -> int:
        padded = tokens(self.grid(size)) * tokens(self.stride())
        return (padded - tokens(size)) * self.in_chans * dim

    def params(self, *, dim: int) -> int:
        norm = self.norm.params(dim=dim) if self.norm else 0
        return linear_params(tokens(self.stride()) * self.in_chans, dim) + norm

    def build(self, dim: int) -> nn.Module:
        norm = build_norm(self.norm, dim) if self.norm else nn.Identity()
        return PatchEmbed(self.in_chans, dim, patch_size=self.stride(), norm=norm)


class PatchEmbed(ByRows):
    """(B, in_chans, H, W) -> (B, ceil(H / P), ceil(W / P), dim): a linear layer over each patch,
    written as a convolution whose kernel is its stride."""

    def __init__(self, in_chans: int, dim: int, *, patch_size: Sides, norm: nn.Module) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.rows = patch_size[0]
        self.proj = convolution(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return functional.by_rows(self, rearrange(x, "b c ... -> b ... c"))

    def transform(self, x: Tensor) -> Tensor:
        x = functional.patches(self.proj, pad_to_multiple(x, self.patch_size))
        normed: Tensor = self.norm(x)
        return normed
