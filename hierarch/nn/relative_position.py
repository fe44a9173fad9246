"""Self-attention in windows of one size, with a learned bias per head and per offset of two tokens.

The relative position bias of Swin Transformer (Liu et al. 2021, arXiv:2103.14030, section 3.2,
eq. 4), which MaxViT has too. Its table and its index carry the names of the published code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.attention import SelfAttention
from hierarch.nn.cut import Cut, Runs
from hierarch.nn.padding import contiguous
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec.grid import Pair

PositionBias = Literal["relative", "none"]


class RelativeSelfAttention(SelfAttention, WindowMixer):
    """(B, H, W, C) -> (B, H, W, C): attention in windows, by the relative position of two tokens if
    `position_bias` says so. If it `clamps`, a window may be smaller than `window_size`."""

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: Pair,
        qkv_bias: bool,
        position_bias: PositionBias,
        clamps: bool = False,
    ) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.window_size = window_size
        self.clamps = clamps
        self.relative_position_bias_table: nn.Parameter | None = None
        if position_bias == "relative":
            h, w = window_size
            table = torch.empty((2 * h - 1) * (2 * w - 1), num_heads)
            self.relative_position_bias_table = nn.Parameter(table)
            index = torch.empty(h * w, h * w, dtype=torch.long)
            self.register_buffer("relative_position_index", index, persistent=False)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the bias table as published, and fill in the index (after the meta device)."""
        if self.relative_position_bias_table is not None:
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
            index = relative_position_index(self.window_size, device=torch.device("cpu"))
            self.relative_position_index.copy_(index)

    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        masks = functional.masks(self, cut, windows)
        return self.attend(windows, [(count, masks[kind]) for kind, count in runs])

    def bias(self, window: Pair) -> Tensor | None:
        """(1, heads, N, N): the position bias of a window that is no larger than the layer's."""
        if self.relative_position_bias_table is None:
            return None
        index = self.relative_position_index
        if self.clamps:
            (h, w), (wh, ww) = window, self.window_size
            index = contiguous(index.view(wh, ww, wh, ww)[:h, :w, :h, :w]).view(h * w, h * w)
        return self.relative_position_bias_table.t()[:, index].contiguous()[None]

    def bias_parameters(self) -> list[nn.Parameter]:
        table = self.relative_position_bias_table
        return [] if table is None else [table]


def relative_position_index(window: Pair, *, device: torch.device | str = "cpu") -> Tensor:
    """The row of the bias table for two positions in a window: (h*w, h*w)."""
    h, w = window
    y, x = torch.arange(h, device=device), torch.arange(w, device=device)
    dy = y[:, None] - y[None, :] + h - 1
    dx = x[:, None] - x[None, :] + w - 1
    rows = dy[:, None, :, None] * (2 * w - 1) + dx[None, :, None, :]
    return rows.reshape(h * w, h * w)
