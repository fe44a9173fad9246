"""Shifted-window attention (Swin Transformer, Liu et al. 2021, arXiv:2103.14030, section 3.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from hierarch.model.attention import SelfAttention
from hierarch.model.shifted_windows import in_windows
from hierarch.model.windows import copied
from hierarch.spec.base import Flag, Pair, pair, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import SmallMap, WindowedSpec, fit, slots


@register
class WindowAttentionSpec(WindowedSpec):
    """Multi-head self-attention inside windows, regular or shifted."""

    formula: ClassVar[str] = "4N'C² + 2M²N'C; N' = N padded to windows, M = window_size"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.14030, eq. (2)"
    no_weight_decay: ClassVar[tuple[str, ...]] = ("relative_position_bias_table",)

    type: Literal["window_attention"] = "window_attention"
    """Shifted-window attention, Swin Transformer's."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""
    position_bias: Literal["relative", "none"] = "relative"
    """relative: a learned bias per head and per offset of two tokens in a window."""

    def macs(self, *, dim: int, grid: Pair) -> int:
        # eq. (2), with N = hw after padding and M^2 = tokens of a window: 4NC^2 + 2M^2NC
        return self._macs(dim, grid, slots(self.fit(grid)[0], grid))

    def padding_macs(self, *, dim: int, grid: Pair) -> int:
        return self._macs(dim, grid, slots(self.fit(grid)[0], grid) - tokens(grid))

    def _macs(self, dim: int, grid: Pair, count: int) -> int:
        window, _ = self.fit(grid)
        return count * (4 * dim**2 + 2 * tokens(window) * dim)

    def build(self, dim: int) -> nn.Module:
        return WindowAttention(
            dim,
            num_heads=self.heads(dim),
            window_size=pair(self.window_size),
            shift_size=pair(self.shift_size),
            qkv_bias=self.qkv_bias,
            position_bias=self.position_bias,
            small_map=self.small_map,
        )


class WindowAttention(SelfAttention):
    """(B, H, W, C) -> (B, H, W, C): attention in windows, then back in place.

    Pads, then shifts, then masks: rows that were no neighbors before the shift never attend to
    each other. Padded tokens are zeros that take part, as in torchvision and Hugging Face.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: Pair,
        shift_size: Pair,
        qkv_bias: bool,
        position_bias: Literal["relative", "none"],
        small_map: SmallMap,
    ) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.window_size = window_size
        self.shift_size = shift_size
        self.small_map = small_map
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

    def forward(self, x: Tensor) -> Tensor:
        window, shift = fit(
            (x.shape[1], x.shape[2]),
            self.window_size,
            self.shift_size,
            self.small_map,
            minimum=torch.sym_min,
        )
        bias = self.position_bias(window)
        return in_windows(x, self.attend, window=window, shift=shift, bias=bias)

    def position_bias(self, window: Pair) -> Tensor | None:
        """The relative position bias of a window no larger than the table's: (1, heads, N, N)."""
        if self.relative_position_bias_table is None:
            return None
        index = self.relative_position_index
        if self.small_map.startswith("clamp"):
            (h, w), (wh, ww) = window, self.window_size
            index = copied(index.view(wh, ww, wh, ww)[:h, :w, :h, :w]).view(h * w, h * w)
        return rearrange(self.relative_position_bias_table[index], "n m heads -> 1 heads n m")


def relative_position_index(window: Pair) -> Tensor:
    """The row of the bias table for two positions in a window: (h*w, h*w)."""
    h, w = window
    y, x = torch.arange(h, device="cpu"), torch.arange(w, device="cpu")
    dy = y[:, None] - y[None, :] + h - 1
    dx = x[:, None] - x[None, :] + w - 1
    rows = dy[:, None, :, None] * (2 * w - 1) + dx[None, :, None, :]
    return rows.reshape(h * w, h * w)
