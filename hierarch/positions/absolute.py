"""The absolute position embedding, learned on a grid of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.spec.base import Side
from hierarch.spec.grid import Sides, per_axis, tokens
from hierarch.spec.parts import PositionSpec
from hierarch.spec.registry import register


@register
class AbsoluteSpec(PositionSpec):
    """A learned vector per position of a grid, added to the tokens."""

    formula: ClassVar[str] = "0 on its own grid; 16NC on another, to which it is resized (bicubic)"
    paper: ClassVar[str] = "Dosovitskiy et al. 2020, arXiv:2010.11929, eq. (1)"
    no_weight_decay: ClassVar[tuple[str, ...]] = ("table",)

    type: Literal["absolute"] = "absolute"
    """A learned vector per position."""
    grid: Annotated[int | Sides, Side(1, 1024)]
    """Tokens along a side of the grid that it is learned on, or [height, width]; for any other
    grid it is resized (bicubic)."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # bicubic: 16 per resized element; nothing on its own grid
        return 0 if grid == per_axis(self.grid) else 16 * tokens(grid) * dim

    def params(self, *, dim: int) -> int:
        return tokens(per_axis(self.grid)) * dim

    def build(self, dim: int) -> nn.Module:
        return AbsolutePosition(dim, grid=per_axis(self.grid))


class AbsolutePosition(nn.Module):
    """(B, H, W, C) -> the same, plus a vector per position, resized (bicubic) to H x W."""

    def __init__(self, dim: int, *, grid: Sides) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(1, *grid, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        # a symbolic size (torch.export) is not branched on
        if type(h) is int and (h, w) == self.grid:
            return x + self.table
        image = rearrange(self.table, "1 h w c -> 1 c h w")
        resized = F.interpolate(image, size=(h, w), mode="bicubic", align_corners=False)
        return x + rearrange(resized, "1 c h w -> 1 h w c")
