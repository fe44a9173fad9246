"""No norm."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.grid import Sides
from hierarch.spec.parts import NormSpec
from hierarch.spec.registry import register


@register
class NoneSpec(NormSpec):
    """No normalization: tokens stay as they are."""

    formula: ClassVar[str] = "0"
    per_token: ClassVar[bool] = True

    type: Literal["none"] = "none"
    """No norm."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return 0

    def build(self, dim: int, *, init: float = 1) -> nn.Module:
        return nn.Identity()
