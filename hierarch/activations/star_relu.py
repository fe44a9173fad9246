"""StarReLU (Yu et al. 2022, arXiv:2210.13452)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hierarch.spec.parts import ActivationSpec
from hierarch.spec.registry import register


@register
class StarReluSpec(ActivationSpec):
    """s max(x, 0)² + b, with a learned scale s and a learned bias b, shared by all channels."""

    paper: ClassVar[str] = "Yu et al. 2022, arXiv:2210.13452, eq. (8)"

    type: Literal["star_relu"] = "star_relu"
    """StarReLU, MetaFormer's."""

    def params(self) -> int:
        return 2

    def build(self) -> nn.Module:
        return StarRelu()


class StarRelu(nn.Module):
    """(...) -> (...)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.relu().square() + self.bias
