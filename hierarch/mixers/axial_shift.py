"""Axial shift (AS-MLP, Lian et al. 2021, arXiv:2107.08391): linear layers on shifted channels.

Groups of channels move by different amounts along a row, or along a column, so that a linear layer
over the channels of one token mixes the tokens of a line.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.layers import build_norm
from hierarch.nn.padding import move
from hierarch.norms.group_norm import GroupNormSpec
from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides, ceil_div, tokens
from hierarch.spec.parts import MixerSpec, linear_params
from hierarch.spec.registry import register

_NORM = GroupNormSpec()


@register
class AxialShiftSpec(MixerSpec):
    """A linear layer, shifts along both axes with a linear layer each, their sum, and a linear
    layer, with norms over the map between them. What leaves the map is dropped, and zeros come in.
    """

    formula: ClassVar[str] = "4NC² + 10NC, of which 10NC for two norms"
    paper: ClassVar[str] = "Lian et al. 2021, arXiv:2107.08391, section 3.2"

    type: Literal["axial_shift"] = "axial_shift"
    """Axial shift, AS-MLP's."""
    kernel_size: Kernel = 5
    """Groups of channels, and tokens of a line that are mixed, the paper's shift size; odd."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 4 * tokens(grid) * dim**2 + 2 * _NORM.macs(dim=dim, grid=grid)

    def params(self, *, dim: int) -> int:
        return 4 * linear_params(dim, dim) + 2 * _NORM.params(dim=dim)

    def build(self, dim: int) -> nn.Module:
        return AxialShift(self, dim)


class AxialShift(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: AxialShiftSpec, dim: int) -> None:
        super().__init__()
        group, middle = ceil_div(dim, spec.kernel_size), spec.kernel_size // 2
        # of a narrow network, the last group has fewer channels, and others may have none
        starts = range(0, dim, group)
        self.sizes = [min(group, dim - start) for start in starts]
        self.moves = [i - middle for i in range(len(starts))]
        self.conv1 = init.linear(dim, dim)
        self.norm1 = build_norm(_NORM, dim)
        self.conv2_1 = init.linear(dim, dim)
        self.conv2_2 = init.linear(dim, dim)
        self.norm2 = build_norm(_NORM, dim)
        self.conv3 = init.linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(functional.linear(self.conv1, x)))
        moving = list(zip(x.split_with_sizes(self.sizes, dim=-1), self.moves, strict=True))
        rows = torch.cat([move(part, right=by) for part, by in moving], dim=-1)
        columns = torch.cat([move(part, down=by) for part, by in moving], dim=-1)
        across = F.gelu(functional.linear(self.conv2_1, rows))
        along = F.gelu(functional.linear(self.conv2_2, columns))
        return functional.linear(self.conv3, self.norm2(across + along))

    def extra_repr(self) -> str:
        return f"moves={self.moves}"
