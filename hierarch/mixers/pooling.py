"""Average pooling as a mixer (PoolFormer, Yu et al. 2021, arXiv:2111.11418)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from hierarch.nn.pooling import mean_of_neighbors
from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class PoolingSpec(MixerSpec):
    """The mean of a token's neighborhood minus the token. It has no parameters."""

    formula: ClassVar[str] = "0: additions only, which are free by fvcore's convention"
    paper: ClassVar[str] = "Yu et al. 2021, arXiv:2111.11418, eq. (4)"

    type: Literal["pooling"] = "pooling"
    """Average pooling, PoolFormer's."""
    kernel_size: Kernel = 3
    """Tokens along a side of the neighborhood; odd."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return 0

    def build(self, dim: int) -> nn.Module:
        return Pooling(self.kernel_size)


class Pooling(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        return mean_of_neighbors(x, self.kernel_size) - x

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"
