"""Depthwise convolution as a mixer (ConvNeXt, Liu et al. 2022, arXiv:2201.03545, section 2.6)."""

from __future__ import annotations

from typing import ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from hierarch.spec.base import Flag, Kernel
from hierarch.spec.grid import Sides, per_axis, tokens
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class DepthwiseConvSpec(MixerSpec):
    """A convolution of each channel with its own kernel."""

    formula: ClassVar[str] = "K²NC; K = kernel_size"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2201.03545, section 2.6"

    type: Literal["depthwise_conv"] = "depthwise_conv"
    """Depthwise convolution, ConvNeXt's."""
    kernel_size: Kernel = 7
    """Tokens along a side of the kernel; odd."""
    bias: Flag = True
    """A bias per channel."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return self.kernel_size**2 * tokens(grid) * dim

    def params(self, *, dim: int) -> int:
        return (self.kernel_size**2 + self.bias) * dim

    def build(self, dim: int) -> nn.Module:
        return DepthwiseConv(dim, kernel_size=self.kernel_size, bias=self.bias)


class DepthwiseConv(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), with zero padding."""

    def __init__(
        self, dim: int, *, kernel_size: int | Sides, bias: bool, dilation: int = 1
    ) -> None:
        super().__init__()
        height, width = per_axis(kernel_size)
        kernel = height, width
        self.conv = nn.Conv2d(
            dim,
            dim,
            kernel,
            padding=(kernel[0] // 2 * dilation, kernel[1] // 2 * dilation),
            dilation=dilation,
            groups=dim,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        images: Tensor = self.conv(rearrange(x, "b h w c -> b c h w"))
        return rearrange(images, "b c h w -> b h w c")
