"""The hyperbolic tangent."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.parts import ActivationSpec
from hierarch.spec.registry import register


@register
class TanhSpec(ActivationSpec):
    """(exp(x) − exp(−x)) / (exp(x) + exp(−x))."""

    paper: ClassVar[str] = "LeCun et al. 1998, Efficient BackProp, section 4.4"

    type: Literal["tanh"] = "tanh"
    """Hyperbolic tangent, as in MaxViT's head."""

    def params(self) -> int:
        return 0

    def build(self) -> nn.Module:
        return nn.Tanh()
