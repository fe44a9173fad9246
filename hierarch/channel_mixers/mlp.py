"""The MLP of a transformer's block (Vaswani et al. 2017, arXiv:1706.03762, section 3.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.nn.layers import Mlp
from hierarch.spec.hidden_layer import HiddenLayerSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class MlpSpec(HiddenLayerSpec):
    """Two linear layers with an activation between them, of each token alone."""

    needs_grid: ClassVar[bool] = False
    formula: ClassVar[str] = "2NCD; D = C·mlp_ratio"
    paper: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762, eq. (2)"

    type: Literal["mlp"] = "mlp"
    """Two linear layers, the MLP of ViT and Swin."""

    def build(self, block: BlockPlan) -> nn.Module:
        return Mlp(block)
