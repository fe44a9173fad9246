"""Multi-head self-attention over the tokens of a sequence, and over those of each window."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.cut import Cut, Runs, product
from hierarch.nn.padding import contiguous
from hierarch.nn.window_mixer import MaskedWindowMixer
from hierarch.spec.grid import Sides, SmallMap, tokens

PositionBias = Literal["relative", "none"]


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, and a projection of the heads' outputs
    (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool, proj_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = init.linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = init.linear(dim, dim, bias=proj_bias)

    def attend(self, x: Tensor, masks: functional.Masks = ()) -> Tensor:
        """(B, N, C) -> (B, N, C): softmax(q kᵀ / √d + mask) v, between two linear layers."""
        q, k, v = self.split(x)
        return functional.linear(self.proj, functional.attention(q, k, v, masks))

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (3, B, heads, N, d): queries, keys and values."""
        qkv = functional.linear(self.qkv, x, self.added_bias())
        # not by einops, which takes as long as a small window's attention
        return qkv.view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def added_bias(self) -> Tensor | None:
        """(3C): a bias of queries, keys and values that is not that of their projection."""
        return None

    def join(self, heads: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, C)."""
        return functional.linear(self.proj, heads.transpose(1, 2).flatten(2))


class RelativeSelfAttention(SelfAttention, MaskedWindowMixer):
    """(B, H, W, C) -> (B, H, W, C): self-attention in windows of one size.

    If `position_bias` says so, with a learned bias per head and per offset of two tokens (Swin, Liu
    et al. 2021, arXiv:2103.14030, section 3.2, eq. 4), as MaxViT has it, too. The table and its
    index carry the names of the published code. Some rules for small maps let a window be smaller
    than `window_size`.

    >>> from hierarch.nn.cut import shifted_cut
    >>> class Shifted(RelativeSelfAttention):
    ...     def cut(self, grid):
    ...         return shifted_cut(grid, self.window_size, (2, 2))
    >>> mixer = Shifted(
    ...     32, num_heads=4, window_size=(4, 4), qkv_bias=True, position_bias="relative"
    ... )
    >>> mixer(torch.zeros(1, 9, 7, 32)).shape
    torch.Size([1, 9, 7, 32])
    """

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: Sides,
        qkv_bias: bool,
        position_bias: PositionBias,
        small_map: SmallMap = "pad",
    ) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.window_size = window_size
        self.small_map = small_map
        self.relative_position_bias_table: nn.Parameter | None = None
        if position_bias == "relative":
            offsets, size = math.prod(2 * side - 1 for side in window_size), tokens(window_size)
            self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, num_heads))
            index = torch.empty(size, size, dtype=torch.long)
            self.register_buffer("relative_position_index", index, persistent=False)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the bias table as published, and fill in the index (after the meta device)."""
        if self.relative_position_bias_table is not None:
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
            index = relative_position_index(self.window_size, device=torch.device("cpu"))
            self.relative_position_index.copy_(index)

    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        masks = self.masks(cut, windows)
        return self.attend(windows, [(count, masks[kind]) for kind, count in runs])

    def bias(self, window: Sides) -> Tensor | None:
        """(1, heads, N, N): the position bias of a window that is no larger than the layer's."""
        if self.relative_position_bias_table is None:
            return None
        index = self.relative_position_index
        if self.small_map.startswith("clamp"):
            size, first = product(window), self.small_map == "clamp_first"
            whole = index if first else index.view(*self.window_size, *self.window_size)
            inside = tuple(slice(side) for side in ((size, size) if first else (*window, *window)))
            index = contiguous(whole[inside]).view(size, size)
        return self.relative_position_bias_table.t()[:, index].contiguous()[None]

    def bias_parameters(self) -> list[nn.Parameter]:
        table = self.relative_position_bias_table
        return [] if table is None else [table]


def without_key_bias(q_bias: Tensor | None, v_bias: Tensor | None) -> Tensor | None:
    """(C), twice -> (3C): the biases of queries, of keys, which is 0, and of values."""
    if q_bias is None or v_bias is None:
        return None
    return torch.cat([q_bias, torch.zeros_like(v_bias), v_bias])


def relative_position_index(window: Sides, *, device: torch.device | str = "cpu") -> Tensor:
    """The row of the bias table for two positions in a window: (N, N), N = h*w."""
    axes = [torch.arange(side, device=device) for side in window]
    rows = torch.zeros((), dtype=torch.long, device=device)
    for side, places in zip(window, torch.meshgrid(axes, indexing="ij"), strict=True):
        offsets = places.flatten()[:, None] - places.flatten() + side - 1
        rows = rows * (2 * side - 1) + offsets
    return rows
