"""The absolute position embedding, learned on a grid of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.spec.grid import Pair


class AbsolutePosition(nn.Module):
    """(B, H, W, C) -> the same, plus a vector per position, resized (bicubic) to H x W."""

    def __init__(self, dim: int, *, grid: Pair) -> None:
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
