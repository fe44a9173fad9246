"""Shifted-window attention (Swin Transformer, Liu et al. 2021, arXiv:2103.14030, section 3.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from hierarch.nn.attention import PositionBias, RelativeSelfAttention
from hierarch.nn.cut import Cut, shifted_cut
from hierarch.nn.padding import symbolic_min
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, SmallMap, fit, slots, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import WindowedSpec, attention_params, bias_table_params


@register
class WindowAttentionSpec(WindowedSpec):
    """Multi-head self-attention within windows, regular or shifted."""

    formula: ClassVar[str] = "4N'C² + 2M²N'C; N' = N padded to windows, M = window_size"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.14030, eq. (2)"
    no_weight_decay: ClassVar[tuple[str, ...]] = ("relative_position_bias_table",)

    type: Literal["window_attention"] = "window_attention"
    """Shifted-window attention, Swin Transformer's."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""
    position_bias: PositionBias = "relative"
    """relative: a learned bias per head and per offset of two tokens in a window."""
    shift_mask: Flag = True
    """A mask in shifted windows, as published: tokens from opposite edges of the map, which only
    the cyclic shift joined, do not attend to each other. false: they do."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # eq. (2), with N = hw after padding and M^2 = tokens of a window: 4NC^2 + 2M^2NC
        return self._macs(dim, grid, slots(self.fit(grid)[0], grid))

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        return self._macs(dim, grid, slots(self.fit(grid)[0], grid) - tokens(grid))

    def _macs(self, dim: int, grid: Sides, count: int) -> int:
        window, _ = self.fit(grid)
        return count * (4 * dim**2 + 2 * tokens(window) * dim)

    def params(self, *, dim: int) -> int:
        # the two linear layers, and the table of the relative position bias
        layers = attention_params(dim, qkv_bias=self.qkv_bias)
        if self.position_bias == "none":
            return layers
        return layers + bias_table_params(self.window, heads=self.heads(dim))

    def build(self, dim: int) -> nn.Module:
        return WindowAttention(
            dim,
            num_heads=self.heads(dim),
            window_size=self.window,
            shift_size=self.shift,
            qkv_bias=self.qkv_bias,
            position_bias=self.position_bias,
            small_map=self.small_map,
            shift_mask=self.shift_mask,
        )


class WindowAttention(RelativeSelfAttention):
    """(B, H, W, C) -> (B, H, W, C): self-attention in each window, regular or shifted."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: Sides,
        shift_size: Sides,
        qkv_bias: bool,
        position_bias: PositionBias,
        small_map: SmallMap,
        shift_mask: bool,
    ) -> None:
        super().__init__(
            dim,
            num_heads=num_heads,
            window_size=window_size,
            qkv_bias=qkv_bias,
            position_bias=position_bias,
            small_map=small_map,
        )
        self.shift_size = shift_size
        self.shift_mask = shift_mask

    def cut(self, grid: Sides) -> Cut:
        window, shift = fit(
            grid, self.window_size, self.shift_size, self.small_map, minimum=symbolic_min
        )
        return shifted_cut(grid, window, shift, masked=self.shift_mask)
