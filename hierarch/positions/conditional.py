"""The conditional position encoding (CPVT, Chu et al. 2021, arXiv:2102.10882)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from hierarch.mixers.depthwise_conv import DepthwiseConv
from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import PositionSpec
from hierarch.spec.registry import register


@register
class ConditionalSpec(PositionSpec):
    """x + a depthwise convolution of x: the zeros around the map tell a token where it is. It fits
    any grid."""

    formula: ClassVar[str] = "K²NC; K = kernel_size"
    paper: ClassVar[str] = "Chu et al. 2021, arXiv:2102.10882, section 3.2"

    type: Literal["conditional"] = "conditional"
    """A depthwise convolution with a skip connection, CPVT's and Twins'."""
    kernel_size: Kernel = 3
    """Tokens along a side of the kernel; odd."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return self.kernel_size**2 * tokens(grid) * dim

    def params(self, *, dim: int) -> int:
        return (self.kernel_size**2 + 1) * dim

    def build(self, dim: int) -> nn.Module:
        return ConditionalPosition(dim, kernel_size=self.kernel_size, bias=True)


class ConditionalPosition(DepthwiseConv):
    """(B, H, W, C) -> (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)
