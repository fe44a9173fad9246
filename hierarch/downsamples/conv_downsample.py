"""A strided convolution between stages (ConvNeXt, MetaFormer, PVT v2)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from hierarch.nn import init
from hierarch.nn.convolution import strided_conv
from hierarch.nn.layers import build_norm
from hierarch.nn.padding import pad_to_multiple
from hierarch.spec.base import Flag
from hierarch.spec.convolution import Length, Padding, strided
from hierarch.spec.grid import Sides, ceil_div, tokens
from hierarch.spec.parts import DownsampleSpec, NormSpec, linear_params
from hierarch.spec.registry import PartOf, register


@register
class ConvDownsampleSpec(DownsampleSpec):
    """A norm, a convolution with a stride, and a norm; either norm may be left out.

    Remaining tokens that the kernel does not reach are ignored, as in PyTorch's convolution, unless
    the map is padded with `pad_rest`.
    """

    formula: ClassVar[str] = "K²·C·C'·N' + the norms'; N' = output tokens"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2201.03545, section 2.2"

    type: Literal["conv_downsample"] = "conv_downsample"
    """A strided convolution, ConvNeXt's and MetaFormer's."""
    kernel_size: Length = 2
    """Tokens along a side of the kernel."""
    stride_size: Length = 2
    """Input tokens from one output token to the next."""
    padding: Padding = 0
    """Zeros around the map."""
    pad_rest: Flag = False
    """Zeros at the bottom and at the right, up to sides that are multiples of stride_size, as in
    DaViT."""
    bias: Flag = True
    """A bias of the convolution."""
    norm: Annotated[NormSpec, PartOf("norm")] | None = None
    """Applied before the convolution; null for none."""
    out_norm: Annotated[NormSpec, PartOf("norm")] | None = None
    """Applied after the convolution; null for none."""

    def stride(self) -> Sides:
        return self.stride_size, self.stride_size

    def grid(self, grid: Sides) -> Sides:
        return strided(
            self._padded(grid),
            kernel_size=self.kernel_size,
            stride=self.stride_size,
            padding=self.padding,
        )

    def _padded(self, grid: Sides) -> Sides:
        stride = self.stride_size if self.pad_rest else 1
        return tuple(ceil_div(n, stride) * stride for n in grid)

    def macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        merged = self.grid(grid)
        norms = self.norm.macs(dim=in_dim, grid=grid) if self.norm else 0
        norms += self.out_norm.macs(dim=dim, grid=merged) if self.out_norm else 0
        return self._products(in_dim, dim, grid) + norms

    def _products(self, in_dim: int, dim: int, grid: Sides) -> int:
        return tokens(self.grid(grid)) * self.kernel_size**2 * in_dim * dim

    def padding_macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        padded = tokens(self._padded(grid))
        return self._products(in_dim, dim, grid) * (padded - tokens(grid)) // padded

    def params(self, *, in_dim: int, dim: int) -> int:
        norms = self.norm.params(dim=in_dim) if self.norm else 0
        norms += self.out_norm.params(dim=dim) if self.out_norm else 0
        return linear_params(self.kernel_size**2 * in_dim, dim, bias=self.bias) + norms

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return ConvDownsample(self, in_dim, dim)


class ConvDownsample(nn.Module):
    """(B, H, W, in_dim) -> (B, h, w, dim)."""

    def __init__(self, spec: ConvDownsampleSpec, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = build_norm(spec.norm, in_dim) if spec.norm else nn.Identity()
        self.reach = {"kernel_size": spec.kernel_size, "padding": spec.padding}
        self.multiple = spec.stride_size if spec.pad_rest else 1
        self.conv = init.conv2d(in_dim, dim, stride=spec.stride_size, bias=spec.bias, **self.reach)
        self.out_norm = build_norm(spec.out_norm, dim) if spec.out_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.multiple > 1:
            x = pad_to_multiple(x, (self.multiple, self.multiple))
        out: Tensor = self.out_norm(strided_conv(self.conv, x, **self.reach))
        return out
