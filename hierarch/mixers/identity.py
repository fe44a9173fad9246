"""No mixing (IdentityFormer, Yu et al. 2022, arXiv:2210.13452): the baseline of all mixers."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.grid import Sides
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class IdentitySpec(MixerSpec):
    """Returns the tokens unchanged."""

    needs_grid: ClassVar[bool] = False
    formula: ClassVar[str] = "0"
    paper: ClassVar[str] = "Yu et al. 2022, arXiv:2210.13452, section 2.1"

    type: Literal["identity"] = "identity"
    """No mixing, IdentityFormer's."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return 0

    def build(self, dim: int) -> nn.Module:
        return nn.Identity()
