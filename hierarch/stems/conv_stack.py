"""A stem of several convolutions (NAT, Hassani et al. 2022, arXiv:2204.07143, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import init
from hierarch.nn.convolution import same_padded, strided_conv
from hierarch.nn.layers import build_activation, build_norm
from hierarch.spec.base import Flag, Kernel, Ratio
from hierarch.spec.convolution import strided
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.head import Activation
from hierarch.spec.parts import NormSpec, StemSpec, linear_params
from hierarch.spec.registry import PartOf, register

Strides = Annotated[
    tuple[Annotated[int, Strict(), Field(ge=1, le=8)], ...], Field(min_length=2, max_length=8)
]


@register
class ConvStackSpec(StemSpec):
    """Convolutions that follow each other, all but the last of a smaller width, and a norm.

    Remaining pixels that a kernel does not reach are ignored, as in PyTorch's convolution.
    """

    formula: ClassVar[str] = "K²·Σ D·D'·N + the norms'; D and D' = widths before and after each"
    paper: ClassVar[str] = "Hassani et al. 2022, arXiv:2204.07143, section 3.3; Xiao et al. 2021"

    type: Literal["conv_stack"] = "conv_stack"
    """Several convolutions."""
    strides: Strides = (2, 2)
    """Of each convolution, from the first to the last."""
    kernel_size: Kernel = 3
    """Pixels along a side of every kernel; odd."""
    padding: Literal["half", "same"] = "half"
    """half: half of a kernel, in zeros around the map. same: TensorFlow's, as many zeros as the
    output takes, of an odd number one more at the end, as in MaxViT."""
    hidden_ratio: Ratio = 0.5
    """Width of all convolutions but the last, as a multiple of dim."""
    in_chans: Annotated[int, Strict(), Field(ge=1, le=1024)] = 3
    """Channels of the image."""
    bias: Flag = True
    """A bias of each convolution."""
    inner_norm: Annotated[NormSpec, PartOf("norm")] | None = None
    """Applied after every convolution but the last; null for none."""
    activation: Activation | None = None
    """Applied after every convolution but the last, and after `inner_norm`; null for none."""
    norm: Annotated[NormSpec, PartOf("norm")] | None = None
    """Applied to each token after the last convolution; null for none."""

    def check(self, *, dim: int) -> None:
        if int(dim * self.hidden_ratio) < 1:
            raise ValueError(f"hidden_ratio={self.hidden_ratio} leaves no width at dim={dim}")

    def stride(self) -> Sides:
        product = 1
        for stride in self.strides:
            product *= stride
        return product, product

    def grid(self, size: Sides) -> Sides:
        *_, last = self._grids(size)
        return last

    def _grids(self, size: Sides) -> Iterator[Sides]:
        for stride in self.strides:
            size = strided(
                size, kernel_size=self.kernel_size, stride=stride, padding=self.kernel_size // 2
            )
            yield size

    def widths(self, dim: int) -> list[int]:
        """Channels before, between and after the convolutions."""
        return [self.in_chans, *[int(dim * self.hidden_ratio)] * (len(self.strides) - 1), dim]

    def macs(self, *, dim: int, size: Sides) -> int:
        widths, grids = self.widths(dim), list(self._grids(size))
        convolutions = sum(
            self.kernel_size**2 * before * after * tokens(grid)
            for (before, after), grid in zip(pairwise(widths), grids, strict=True)
        )
        inner = zip(widths[1:-1], grids[:-1], strict=True)
        norms = sum(self.inner_norm.macs(dim=w, grid=g) for w, g in inner) if self.inner_norm else 0
        last = self.norm.macs(dim=dim, grid=grids[-1]) if self.norm else 0
        return convolutions + norms + last

    def padding_macs(self, *, dim: int, size: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        widths = self.widths(dim)
        total = self.norm.params(dim=dim) if self.norm else 0
        for before, after in pairwise(widths):
            total += linear_params(self.kernel_size**2 * before, after, bias=self.bias)
        for width in widths[1:-1]:
            total += self.inner_norm.params(dim=width) if self.inner_norm else 0
            total += self.activation.params() if self.activation else 0
        return total

    def build(self, dim: int) -> nn.Module:
        return ConvStack(self, dim)


class ConvStack(nn.Module):
    """(B, in_chans, H, W) -> (B, h, w, dim). The last convolution is `proj`."""

    def __init__(self, spec: ConvStackSpec, dim: int) -> None:
        super().__init__()
        self.strides, self.same = spec.strides, spec.padding == "same"
        padding = 0 if self.same else spec.kernel_size // 2
        self.reach = {"kernel_size": spec.kernel_size, "padding": padding}
        *inner, last = (
            init.conv2d(before, after, stride=stride, bias=spec.bias, **self.reach)
            for (before, after), stride in zip(
                pairwise(spec.widths(dim)), spec.strides, strict=True
            )
        )
        self.convs = nn.ModuleList(inner)
        own = spec.inner_norm
        self.norms = nn.ModuleList(
            build_norm(own, conv.out_channels) if own else nn.Identity() for conv in inner
        )
        act = spec.activation
        self.acts = nn.ModuleList(build_activation(act) if act else nn.Identity() for _ in inner)
        self.proj = last
        self.norm = build_norm(spec.norm, dim) if spec.norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(x, "b c h w -> b h w c")
        *strides, last = self.strides
        for conv, norm, act, stride in zip(self.convs, self.norms, self.acts, strides, strict=True):
            x = act(norm(self.convolved(x, conv, stride)))
        normed: Tensor = self.norm(self.convolved(x, self.proj, last))
        return normed

    def convolved(self, x: Tensor, conv: nn.Module, stride: int) -> Tensor:
        """(B, H, W, in_dim) -> (B, ceil(H / S), ceil(W / S), dim)."""
        if self.same:
            x = same_padded(x, kernel_size=self.reach["kernel_size"], stride=stride)
        return strided_conv(conv, x, **self.reach)
