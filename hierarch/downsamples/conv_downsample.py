"""A strided convolution between stages (ConvNeXt, MetaFormer)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from hierarch.nn import init
from hierarch.nn.convolution import strided_conv
from hierarch.nn.layers import build_norm
from hierarch.spec.base import Flag
from hierarch.spec.convolution import Length, Padding, strided
from hierarch.spec.grid import Pair, tokens
from hierarch.spec.parts import DownsampleSpec, NormSpec, linear_params
from hierarch.spec.registry import PartOf, register


@register
class ConvDownsampleSpec(DownsampleSpec):
    """A norm, then a convolution with a stride.

    Remaining tokens that the kernel does not reach are ignored, as in PyTorch's convolution.
    """

    formula: ClassVar[str] = "K²·C·C'·N' + the norm's; N' = output tokens"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2201.03545, section 2.2"

    type: Literal["conv_downsample"] = "conv_downsample"
    """A strided convolution, ConvNeXt's and MetaFormer's."""
    kernel_size: Length = 2
    """Tokens along a side of the kernel."""
    stride_size: Length = 2
    """Input tokens from one output token to the next."""
    padding: Padding = 0
    """Zeros around the map."""
    bias: Flag = True
    """A bias of the convolution."""
    norm: Annotated[NormSpec, PartOf("norm")] | None = None
    """Applied before the convolution; null for none."""

    def stride(self) -> Pair:
        return self.stride_size, self.stride_size

    def grid(self, grid: Pair) -> Pair:
        return strided(
            grid, kernel_size=self.kernel_size, stride=self.stride_size, padding=self.padding
        )

    def macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        norm = self.norm.macs(dim=in_dim, grid=grid) if self.norm else 0
        return tokens(self.grid(grid)) * self.kernel_size**2 * in_dim * dim + norm

    def padding_macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        return 0

    def params(self, *, in_dim: int, dim: int) -> int:
        norm = self.norm.params(dim=in_dim) if self.norm else 0
        return linear_params(self.kernel_size**2 * in_dim, dim, bias=self.bias) + norm

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return ConvDownsample(self, in_dim, dim)


class ConvDownsample(nn.Module):
    """(B, H, W, in_dim) -> (B, h, w, dim)."""

    def __init__(self, spec: ConvDownsampleSpec, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = build_norm(spec.norm, in_dim) if spec.norm else nn.Identity()
        self.reach = {"kernel_size": spec.kernel_size, "padding": spec.padding}
        self.conv = init.conv2d(in_dim, dim, stride=spec.stride_size, bias=spec.bias, **self.reach)

    def forward(self, x: Tensor) -> Tensor:
        return strided_conv(self.conv, self.norm(x), **self.reach)
