"""The rectified linear unit."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.parts import ActivationSpec
from hierarch.spec.registry import register


@register
class ReluSpec(ActivationSpec):
    """max(x, 0)."""

    paper: ClassVar[str] = "Nair & Hinton 2010, ICML"

    type: Literal["relu"] = "relu"
    """ReLU."""

    def params(self) -> int:
        return 0

    def build(self) -> nn.Module:
        return nn.ReLU()
