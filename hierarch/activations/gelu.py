"""The Gaussian error linear unit (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.spec.parts import ActivationSpec
from hierarch.spec.registry import register


@register
class GeluSpec(ActivationSpec):
    """x Φ(x), with the exact Φ of the normal distribution."""

    paper: ClassVar[str] = "Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2"

    type: Literal["gelu"] = "gelu"
    """Exact GELU, as in Swin and ViT."""

    def params(self) -> int:
        return 0

    def build(self) -> nn.Module:
        return nn.GELU()
