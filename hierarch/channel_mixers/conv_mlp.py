"""An MLP with a depthwise convolution inside (PVT v2, Wang et al. 2021, arXiv:2106.13797)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from hierarch.mixers.depthwise_conv import DepthwiseConv
from hierarch.nn import functional
from hierarch.nn.layers import Mlp, build_activation
from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.head import Activation
from hierarch.spec.hidden_layer import HiddenLayerSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class ConvMlpSpec(HiddenLayerSpec):
    """An MLP with a depthwise convolution before its activation, which tells each token where it
    is: its neighbors, and the zeros around the map."""

    needs_grid: ClassVar[bool] = True
    formula: ClassVar[str] = "2NCD + K²ND; D = C·mlp_ratio, K = kernel_size"
    paper: ClassVar[str] = "Wang et al. 2021, arXiv:2106.13797, section 3.3"

    type: Literal["conv_mlp"] = "conv_mlp"
    """An MLP with a depthwise convolution inside, PVT v2's."""
    kernel_size: Kernel = 3
    """Tokens along a side of the kernel; odd."""
    inner_activation: Activation | None = None
    """An activation before the convolution, ReLU in PVT v2's linear variant; null for none."""

    def macs(self, block: BlockPlan, *, grid: Sides) -> int:
        convolution = self.kernel_size**2 * tokens(grid) * block.hidden_dim
        return super().macs(block, grid=grid) + convolution

    def params(self, block: BlockPlan) -> int:
        convolution = (self.kernel_size**2 + block.mlp_bias) * block.hidden_dim
        inner = self.inner_activation.params() if self.inner_activation else 0
        return super().params(block) + inner + convolution

    def build(self, block: BlockPlan) -> nn.Module:
        return ConvMlp(self, block)


class ConvMlp(Mlp):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: ConvMlpSpec, block: BlockPlan) -> None:
        super().__init__(block)
        inner = spec.inner_activation
        self.inner_act = build_activation(inner) if inner else nn.Identity()
        self.conv = DepthwiseConv(
            block.hidden_dim, kernel_size=spec.kernel_size, bias=block.mlp_bias
        )

    def hidden(self, x: Tensor) -> Tensor:
        widened = self.inner_act(functional.linear(self.fc1, x))
        activated: Tensor = self.act(self.conv(widened))
        return activated
