"""The square of the rectified linear unit (So et al. 2021, arXiv:2109.08668)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from hierarch.spec.parts import ActivationSpec
from hierarch.spec.registry import register


@register
class SquaredReluSpec(ActivationSpec):
    """max(x, 0)²."""

    paper: ClassVar[str] = "So et al. 2021, arXiv:2109.08668, section 3"

    type: Literal["squared_relu"] = "squared_relu"
    """Squared ReLU, as in MetaFormer's head."""

    def params(self) -> int:
        return 0

    def build(self) -> nn.Module:
        return SquaredRelu()


class SquaredRelu(nn.Module):
    """(...) -> (...)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()
