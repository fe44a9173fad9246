"""Inception depthwise convolution (InceptionNeXt, Yu et al. 2023, arXiv:2303.16900, section 3.2).

A large depthwise kernel is split into a small square and two bands, each for a few channels. Most
channels are not mixed at all.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.mixers.depthwise_conv import DepthwiseConv
from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class InceptionConvSpec(MixerSpec):
    """Depthwise convolutions of three groups of channels, by a square, a horizontal band and a
    vertical band; the other channels stay as they are."""

    formula: ClassVar[str] = "(K² + 2L)NG; K = square_kernel_size, L = band_kernel_size, G = C·b"
    paper: ClassVar[str] = "Yu et al. 2023, arXiv:2303.16900, section 3"

    type: Literal["inception_conv"] = "inception_conv"
    """Inception depthwise convolution, InceptionNeXt's."""
    square_kernel_size: Kernel = 3
    """Tokens along a side of the square kernel; odd."""
    band_kernel_size: Kernel = 11
    """Tokens along a band; odd."""
    branch_ratio: Annotated[float, Strict(), Field(gt=0, le=1 / 3, allow_inf_nan=False)] = 0.125
    """Channels of each of the three groups, as a part of dim: b; rounded down."""

    def check(self, *, dim: int) -> None:
        if self.group(dim) < 1:
            raise ValueError(f"branch_ratio={self.branch_ratio} leaves no channel at dim={dim}")

    def group(self, dim: int) -> int:
        """Channels of each convolution."""
        return int(self.branch_ratio * dim)

    def macs(self, *, dim: int, grid: Sides) -> int:
        # of each group's channels: K² by the square, and L by a band
        kernels = self.square_kernel_size**2 + 2 * self.band_kernel_size
        return tokens(grid) * self.group(dim) * kernels

    def params(self, *, dim: int) -> int:
        kernels = self.square_kernel_size**2 + 2 * self.band_kernel_size
        return self.group(dim) * (kernels + 3)

    def build(self, dim: int) -> nn.Module:
        return InceptionConv(self, dim)


class InceptionConv(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), with zero padding."""

    def __init__(self, spec: InceptionConvSpec, dim: int) -> None:
        super().__init__()
        group, band = spec.group(dim), spec.band_kernel_size
        self.sizes = [dim - 3 * group, group, group, group]
        self.dwconv_hw = DepthwiseConv(group, kernel_size=spec.square_kernel_size, bias=True)
        self.dwconv_w = DepthwiseConv(group, kernel_size=(1, band), bias=True)
        self.dwconv_h = DepthwiseConv(group, kernel_size=(band, 1), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        same, square, row, column = x.split_with_sizes(self.sizes, dim=-1)
        mixed = [self.dwconv_hw(square), self.dwconv_w(row), self.dwconv_h(column)]
        return torch.cat([same, *mixed], dim=-1)
