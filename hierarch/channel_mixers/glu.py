"""The gated linear unit as a channel mixer (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.layers import Mlp, per_token
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.hidden_layer import HiddenLayerSpec
from hierarch.spec.parts import linear_params
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class GluSpec(HiddenLayerSpec):
    """Two linear layers side by side, one of them through the activation, multiplied number by
    number, and a linear layer back: SwiGLU with `activation: silu`, GEGLU with `gelu`."""

    needs_grid: ClassVar[bool] = False
    formula: ClassVar[str] = "3NCD; D = C·mlp_ratio"
    paper: ClassVar[str] = "Shazeer 2020, arXiv:2002.05202, eq. (6)"

    type: Literal["glu"] = "glu"
    """A gated linear unit: SwiGLU, GEGLU."""

    def macs(self, block: BlockPlan, *, grid: Sides) -> int:
        # W, V and W2: three linear layers
        return 3 * tokens(grid) * block.dim * block.hidden_dim

    def params(self, block: BlockPlan) -> int:
        return super().params(block) + linear_params(
            block.dim, block.hidden_dim, bias=block.mlp_bias
        )

    def build(self, block: BlockPlan) -> nn.Module:
        return Glu(block)


@per_token
class Glu(Mlp):
    """(..., C) -> (..., C): (act(x W) * x V) W2; W and V are the halves of `fc1`."""

    def __init__(self, block: BlockPlan) -> None:
        super().__init__(block)
        self.fc1 = init.linear(block.dim, 2 * block.hidden_dim, bias=block.mlp_bias)

    def hidden(self, x: Tensor) -> Tensor:
        gate, value = functional.linear(self.fc1, x).chunk(2, dim=-1)
        gated: Tensor = self.act(gate) * value
        return gated
