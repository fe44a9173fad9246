"""Shifted-window attention (Swin Transformer, Liu et al. 2021, arXiv:2103.14030, section 3.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hierarch.model.relative_position import PositionBias, RelativeSelfAttention
from hierarch.model.windows import is_zero, merge, pad, pad_to_multiple, partition, roll
from hierarch.spec.base import Flag, Pair, ceil_div, pair, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import SmallMap, WindowedSpec, fit

OTHER_REGION = -100.0
"""Added, as published, to the logit of a pair of tokens that are no neighbors in the image."""


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
    position_bias: PositionBias = "relative"
    """relative: a learned bias per head and per offset of two tokens in a window."""

    def slots(self, grid: Pair) -> int:
        (h, w), ((wh, ww), _) = grid, self.fit(grid)
        return ceil_div(h, wh) * wh * ceil_div(w, ww) * ww

    def macs(self, *, dim: int, grid: Pair) -> int:
        # eq. (2), with N = hw after padding and M^2 = tokens of a window: 4NC^2 + 2M^2NC
        return self.slots(grid) * self._macs_per_slot(dim, grid)

    def padding_macs(self, *, dim: int, grid: Pair) -> int:
        return (self.slots(grid) - tokens(grid)) * self._macs_per_slot(dim, grid)

    def _macs_per_slot(self, dim: int, grid: Pair) -> int:
        window, _ = self.fit(grid)
        return 4 * dim**2 + 2 * tokens(window) * dim

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


class WindowAttention(RelativeSelfAttention):
    """(B, H, W, C) -> (B, H, W, C): attention in windows, then back in place.

    Pads, then shifts, then masks: rows that were no neighbors before the shift never attend to
    each other. Padded tokens are zeros that take part, as in torchvision and Hugging Face.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: Pair,
        shift_size: Pair,
        qkv_bias: bool,
        position_bias: PositionBias,
        small_map: SmallMap,
    ) -> None:
        super().__init__(
            dim,
            num_heads=num_heads,
            window_size=window_size,
            qkv_bias=qkv_bias,
            position_bias=position_bias,
        )
        self.shift_size = shift_size
        self.small_map = small_map

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        window, (down, right) = fit(
            (h, w), self.window_size, self.shift_size, self.small_map, minimum=torch.sym_min
        )
        x = roll(pad_to_multiple(x, window), (-down, -right))
        padded = (x.shape[1], x.shape[2])
        x = self.attend(partition(x, window), self.mask(x, window, (down, right)))
        x = roll(merge(x, window, padded), (down, right))
        return pad(x, bottom=h - padded[0], right=w - padded[1])

    def mask(self, x: Tensor, window: Pair, shift: Pair) -> Tensor | None:
        """What to add to the logits of the grid x: (B*nW or 1, heads or 1, N, N)."""
        bias = self.position_bias(window if self.small_map.startswith("clamp") else None)
        if all(map(is_zero, shift)):
            return bias
        b, h, w, _ = x.shape
        regions = shift_mask((h // window[0], w // window[1]), window, shift, like=x)
        return (regions if bias is None else regions + bias).repeat(b, 1, 1, 1)


def shift_mask(windows: Pair, window: Pair, shift: Pair, *, like: Tensor) -> Tensor:
    """(nH*nW, 1, N, N): 0 between neighbors, -100 between what only the shift brought together.

    Only the last window of an axis holds both ends of the image.
    """

    def apart(n: int, size: int, moved: int) -> Tensor:
        """(n, size, size): whether two positions of a window come from different ends."""
        end = torch.arange(size, device=like.device) >= size - moved
        last = torch.arange(n, device=like.device) == n - 1
        return last[:, None, None] & (end[:, None] != end[None, :])

    rows, columns = map(apart, windows, window, shift)
    either = rows[:, None, :, None, :, None] | columns[None, :, None, :, None, :]
    count, size = tokens(windows), tokens(window)
    return (either.to(like.dtype) * OTHER_REGION).reshape(count, 1, size, size)
