"""No channel mixer: a block that ends after its token mixer."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.grid import Sides
from hierarch.spec.parts import ChannelMixerSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class NoneSpec(ChannelMixerSpec):
    """The block has no second half: neither a channel mixer nor a norm for it."""

    needs_grid: ClassVar[bool] = False
    formula: ClassVar[str] = "0"
    norms: ClassVar[int] = 0

    type: Literal["none"] = "none"
    """No channel mixer."""

    def macs(self, block: BlockPlan, *, grid: Sides) -> int:
        return 0

    def params(self, block: BlockPlan) -> int:
        return 0

    def build(self, block: BlockPlan) -> nn.Module | None:
        return None
