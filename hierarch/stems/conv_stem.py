"""A stem of overlapping patches (MetaFormer, Yu et al. 2021, arXiv:2111.11418, section 3)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import init
from hierarch.nn.convolution import strided_conv
from hierarch.nn.layers import build_norm
from hierarch.spec.base import Flag
from hierarch.spec.convolution import Length, Padding, strided
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import NormSpec, StemSpec, linear_params
from hierarch.spec.registry import PartOf, register


@register
class ConvStemSpec(StemSpec):
    """A convolution whose kernel is larger than its stride, and a norm.

    Remaining pixels that the kernel does not reach are ignored, as in PyTorch's convolution.
    """

    formula: ClassVar[str] = "K²·in_chans·NC + the norm's"
    paper: ClassVar[str] = "Yu et al. 2021, arXiv:2111.11418, section 3"

    type: Literal["conv_stem"] = "conv_stem"
    """Overlapping patches."""
    kernel_size: Length = 7
    """Pixels along a side of the kernel."""
    stride_size: Length = 4
    """Pixels from one token to the next."""
    padding: Padding = 2
    """Zeros around the image."""
    in_chans: Annotated[int, Strict(), Field(ge=1, le=1024)] = 3
    """Channels of the image."""
    bias: Flag = True
    """A bias of the convolution."""
    norm: Annotated[NormSpec, PartOf("norm")] | None = None
    """Applied to each token after the convolution; null for none."""

    def stride(self) -> Sides:
        return self.stride_size, self.stride_size

    def grid(self, size: Sides) -> Sides:
        return strided(
            size, kernel_size=self.kernel_size, stride=self.stride_size, padding=self.padding
        )

    def macs(self, *, dim: int, size: Sides) -> int:
        grid = self.grid(size)
        norm = self.norm.macs(dim=dim, grid=grid) if self.norm else 0
        return tokens(grid) * self.kernel_size**2 * self.in_chans * dim + norm

    def padding_macs(self, *, dim: int, size: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        norm = self.norm.params(dim=dim) if self.norm else 0
        return linear_params(self.kernel_size**2 * self.in_chans, dim, bias=self.bias) + norm

    def build(self, dim: int) -> nn.Module:
        return ConvStem(self, dim)


class ConvStem(nn.Module):
    """(B, in_chans, H, W) -> (B, h, w, dim)."""

    def __init__(self, spec: ConvStemSpec, dim: int) -> None:
        super().__init__()
        self.reach = {"kernel_size": spec.kernel_size, "padding": spec.padding}
        self.proj = init.conv2d(
            spec.in_chans, dim, stride=spec.stride_size, bias=spec.bias, **self.reach
        )
        self.norm = build_norm(spec.norm, dim) if spec.norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(
            strided_conv(self.proj, rearrange(x, "b c h w -> b h w c"), **self.reach)
        )
        return normed
