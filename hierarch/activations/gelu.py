"""The Gaussian error linear unit (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.parts import ActivationSpec
from hierarch.spec.registry import register


@register
class GeluSpec(ActivationSpec):
    """x Φ(x), with the Φ of the normal distribution, exact or by a tanh."""

    paper: ClassVar[str] = "Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2"

    type: Literal["gelu"] = "gelu"
    """GELU, as in Swin and ViT."""
    approximate: Literal["none", "tanh"] = "none"
    """none: the exact Φ. tanh: (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 in its place, as in
    MaxViT."""

    def params(self) -> int:
        return 0

    def build(self) -> nn.Module:
        return nn.GELU(approximate=self.approximate)
