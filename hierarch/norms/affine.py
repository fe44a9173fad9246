"""A scale and a bias per channel instead of a norm (ResMLP, Touvron et al. 2021)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hierarch.spec.grid import Sides
from hierarch.spec.parts import NormSpec
from hierarch.spec.registry import register


@register
class AffineSpec(NormSpec):
    """A learned scale and bias per channel, with no statistics of the input."""

    formula: ClassVar[str] = "0: element-wise, which is free by fvcore's convention"
    paper: ClassVar[str] = "Touvron et al. 2021, arXiv:2105.03404, eq. (1)"
    per_token: ClassVar[bool] = True

    type: Literal["affine"] = "affine"
    """A scale and a bias per channel, ResMLP's."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return 2 * dim

    def build(self, dim: int, *, init: float = 1) -> nn.Module:
        return Affine(dim, init=init)


class Affine(nn.Module):
    """(..., C) -> (..., C)."""

    def __init__(self, dim: int, *, init: float) -> None:
        super().__init__()
        self.init = init
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.init)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias
