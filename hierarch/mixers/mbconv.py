"""The inverted residual of MaxViT and CoAtNet (MBConv), as a mixer."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.nn.inverted_residual import InvertedResidual
from hierarch.spec.grid import Sides
from hierarch.spec.inverted_residual import InvertedResidualSpec
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class MbConvSpec(InvertedResidualSpec, MixerSpec):
    """A linear layer that widens the channels, a depthwise convolution, squeeze-and-excitation, and
    a linear layer back. With `channel_mixer: none` and a norm before it, this is MBConv's block."""

    formula: ClassVar[str] = (
        "2NCD + K²ND + 2DR + the norms'; D = C·expand_ratio, R = C·squeeze_ratio, K = kernel_size"
    )
    paper: ClassVar[str] = (
        "Sandler et al. 2018, arXiv:1801.04381, section 3.3; Tu et al. 2022, arXiv:2204.01697"
    )

    type: Literal["mbconv"] = "mbconv"
    """Inverted residual with squeeze-and-excitation, MaxViT's."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return self.branch_macs(in_dim=dim, dim=dim, grid=grid, out_grid=grid)

    def params(self, *, dim: int) -> int:
        return self.branch_params(in_dim=dim, dim=dim)

    def build(self, dim: int) -> nn.Module:
        return InvertedResidual(self, in_dim=dim, dim=dim)
