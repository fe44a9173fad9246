"""Self-attention in windows of one size, with a learned bias per head and per offset of two tokens.

The relative position bias of Swin Transformer (Liu et al. 2021, arXiv:2103.14030, section 3.2,
eq. 4), which MaxViT has too. Its table and its index carry the names of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hierarch.model.attention import SelfAttention
from hierarch.model.by_size import kept_on_gpu
from hierarch.model.cut import Cut, Kind
from hierarch.model.masks import aligned
from hierarch.model.memo import Memo
from hierarch.model.shifted_windows import KindMasks, remembered_masks
from hierarch.model.windows import copied
from hierarch.spec.base import Pair

PositionBias = Literal["relative", "none"]


class RelativeSelfAttention(SelfAttention):
    """Self-attention that knows where in a window its tokens are, if `position_bias` says so."""

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: Pair,
        qkv_bias: bool,
        position_bias: PositionBias,
    ) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.window_size = window_size
        self.memo = Memo()
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
            self.relative_position_index.copy_(relative_position_index(self.window_size))

    def mix(self, windows: Tensor, cut: Cut, counts: Sequence[tuple[Kind, int]]) -> Tensor:
        masks = self.masks(cut.window, cut.shift, like=windows)
        return self.attend(windows, [(count, masks[kind]) for kind, count in counts])

    def masks(self, window: Pair, shift: Pair, *, like: Tensor) -> KindMasks:
        """What to add to the logits of a window of each kind."""
        table = self.relative_position_bias_table
        weights = [] if table is None else [table]
        return remembered_masks(
            self.memo, weights, lambda: self.bias_of(window), window, shift, like=like
        )

    def bias_of(self, window: Pair) -> Tensor | None:
        """The position bias of this window, which is the layer's own."""
        return self.position_bias()

    def position_bias(self, clamped: Pair | None = None) -> Tensor | None:
        """The bias of a window, or of one clamped to less: (1, heads, N, N or more)."""
        if self.relative_position_bias_table is None:
            return None
        index = self.relative_position_index
        if clamped is not None:
            (h, w), (wh, ww) = clamped, self.window_size
            index = copied(index.view(wh, ww, wh, ww)[:h, :w, :h, :w]).view(h * w, h * w)
        return aligned(self.relative_position_bias_table.t()[:, index])[None]


@kept_on_gpu
def relative_position_index(window: Pair, *, device: torch.device | str = "cpu") -> Tensor:
    """The row of the bias table for two positions in a window: (h*w, h*w)."""
    h, w = window
    y, x = torch.arange(h, device=device), torch.arange(w, device=device)
    dy = y[:, None] - y[None, :] + h - 1
    dx = x[:, None] - x[None, :] + w - 1
    rows = dy[:, None, :, None] * (2 * w - 1) + dx[None, :, None, :]
    return rows.reshape(h * w, h * w)
