"""The separable convolution of ConvFormer (Yu et al. 2022, arXiv:2210.13452)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from hierarch.mixers.depthwise_conv import DepthwiseConv
from hierarch.nn import functional, init
from hierarch.nn.layers import build_activation
from hierarch.spec.base import Flag, Kernel, Ratio
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.head import Activation
from hierarch.spec.parts import MixerSpec, linear_params
from hierarch.spec.registry import default, register


@register
class SeparableConvSpec(MixerSpec):
    """A linear layer that widens the channels, a depthwise convolution, and a linear layer back."""

    formula: ClassVar[str] = "2eNC² + K²eNC; e = expand_ratio, K = kernel_size"
    paper: ClassVar[str] = "Yu et al. 2022, arXiv:2210.13452, eq. (6); MobileNetV2's block"

    type: Literal["separable_conv"] = "separable_conv"
    """Inverted separable convolution, ConvFormer's."""
    kernel_size: Kernel = 7
    """Tokens along a side of the kernel; odd."""
    expand_ratio: Ratio = 2
    """Width of the convolution, as a multiple of dim."""
    bias: Flag = False
    """A bias in each of the three layers."""
    activation: Activation = default("activation", "star_relu")
    """The activation between the first linear layer and the convolution."""

    def check(self, *, dim: int) -> None:
        if self.hidden_dim(dim) < 1:
            raise ValueError(f"expand_ratio={self.expand_ratio} leaves no width at dim={dim}")

    def hidden_dim(self, dim: int) -> int:
        return int(self.expand_ratio * dim)

    def macs(self, *, dim: int, grid: Sides) -> int:
        # two linear layers, NC·eC each, and K^2 for each of eC channels
        return tokens(grid) * self.hidden_dim(dim) * (2 * dim + self.kernel_size**2)

    def params(self, *, dim: int) -> int:
        hidden = self.hidden_dim(dim)
        layers = linear_params(dim, hidden, bias=self.bias)
        layers += linear_params(hidden, dim, bias=self.bias)
        return layers + (self.kernel_size**2 + self.bias) * hidden + self.activation.params()

    def build(self, dim: int) -> nn.Module:
        return SeparableConv(self, dim)


class SeparableConv(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: SeparableConvSpec, dim: int) -> None:
        super().__init__()
        hidden = spec.hidden_dim(dim)
        self.expand = init.linear(dim, hidden, bias=spec.bias)
        self.act = build_activation(spec.activation)
        self.mix = DepthwiseConv(hidden, kernel_size=spec.kernel_size, bias=spec.bias)
        self.reduce = init.linear(hidden, dim, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.reduce, self.mix(self.act(functional.linear(self.expand, x))))
