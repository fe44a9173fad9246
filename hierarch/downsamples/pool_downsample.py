"""Pooling between stages, then a linear layer (CoAtNet, Dai et al. 2021, arXiv:2106.04803)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.layers import build_norm
from hierarch.nn.padding import is_zero
from hierarch.nn.pooling import mean_of_neighbors
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, ceil_div, tokens
from hierarch.spec.parts import DownsampleSpec, NormSpec, linear_params
from hierarch.spec.registry import PartOf, register

STRIDE = 2


@register
class PoolDownsampleSpec(DownsampleSpec):
    """A norm, the largest or the mean of neighboring tokens in each channel, and a linear layer.

    At the map's edges, only its own tokens count.
    """

    formula: ClassVar[str] = "C·C'·N/4 + the norm's"
    paper: ClassVar[str] = "Dai et al. 2021, arXiv:2106.04803"

    type: Literal["pool_downsample"] = "pool_downsample"
    """Pooling, CoAtNet's."""
    pool: Literal["max", "mean"] = "max"
    """The largest number of a neighborhood, or the mean."""
    kernel_size: Literal[2, 3] = 2
    """Tokens along a side of a neighborhood: 2x2 tokens, or overlapping ones of 3x3."""
    bias: Flag = True
    """A bias of the linear layer."""
    norm: Annotated[NormSpec, PartOf("norm")] | None = None
    """Applied before pooling; null for none."""

    def stride(self) -> Sides:
        return STRIDE, STRIDE

    def grid(self, grid: Sides) -> Sides:
        return tuple(ceil_div(side, STRIDE) for side in grid)

    def macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        # comparisons and additions are free by fvcore's convention
        norm = self.norm.macs(dim=in_dim, grid=grid) if self.norm else 0
        return tokens(self.grid(grid)) * in_dim * dim + norm

    def padding_macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, in_dim: int, dim: int) -> int:
        norm = self.norm.params(dim=in_dim) if self.norm else 0
        return linear_params(in_dim, dim, bias=self.bias) + norm

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return PoolDownsample(self, in_dim, dim)


class PoolDownsample(nn.Module):
    """(B, H, W, in_dim) -> (B, ceil(H / 2), ceil(W / 2), dim)."""

    def __init__(self, spec: PoolDownsampleSpec, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = build_norm(spec.norm, in_dim) if spec.norm else nn.Identity()
        self.pool, self.kernel_size = spec.pool, spec.kernel_size
        self.proj = init.linear(in_dim, dim, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.proj, self.pooled(self.norm(x)))

    def pooled(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""
        k, below, right = self.kernel_size, -x.shape[1] % STRIDE, -x.shape[2] % STRIDE
        images = rearrange(x, "b h w c -> b c h w")
        if k == STRIDE and not (is_zero(below) and is_zero(right)):
            # a copy of an odd edge changes neither maximum nor mean
            images = F.pad(images, (0, right, 0, below), mode="replicate")
        if self.pool == "mean":
            return mean_of_neighbors(rearrange(images, "b c h w -> b h w c"), k, STRIDE)
        largest = F.max_pool2d(images, k, stride=STRIDE, padding=(k - 1) // 2)
        return rearrange(largest, "b c h w -> b h w c")

    def extra_repr(self) -> str:
        return f"pool={self.pool!r}, kernel_size={self.kernel_size}"
