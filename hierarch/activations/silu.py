"""The sigmoid linear unit, or swish."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.parts import ActivationSpec
from hierarch.spec.registry import register


@register
class SiluSpec(ActivationSpec):
    """x · sigmoid(x)."""

    paper: ClassVar[str] = "Elfwing et al. 2017, arXiv:1702.03118, eq. (8)"

    type: Literal["silu"] = "silu"
    """SiLU, also called swish."""

    def params(self) -> int:
        return 0

    def build(self) -> nn.Module:
        return nn.SiLU()
