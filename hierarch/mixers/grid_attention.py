"""Grid attention (MaxViT, Tu et al. 2022, arXiv:2204.01697, section 3.2): sparse and global.

The tokens of a window are spread over the whole map, H/G rows and W/G columns apart. MaxViT
alternates window_attention and grid_attention.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import nn

from hierarch.nn.attention import PositionBias, RelativeSelfAttention
from hierarch.nn.cut import Cut, Dilated
from hierarch.spec.base import Flag, Side
from hierarch.spec.grid import AXES, Sides, per_axis, slots, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import HeadedSpec, attention_params, bias_table_params


@register
class GridAttentionSpec(HeadedSpec):
    """Multi-head self-attention within dilated windows, whose tokens are spread over the map."""

    formula: ClassVar[str] = "4N'C² + 2G²N'C; N' = N padded to multiples of G, G = window_size"
    paper: ClassVar[str] = "Tu et al. 2022, arXiv:2204.01697, section 3.2"
    no_weight_decay: ClassVar[tuple[str, ...]] = ("relative_position_bias_table",)

    type: Literal["grid_attention"] = "grid_attention"
    """Grid attention, MaxViT's: dilated windows that span the map."""
    window_size: Annotated[int | Sides, Side(1, 64, axes=AXES)] = 7
    """Tokens along a side of a dilated window, or a list of one per axis: the paper's grid size G.
    A map is padded to multiples of it."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""
    position_bias: PositionBias = "relative"
    """relative: a learned bias per head and per offset of two tokens, in steps of the dilation."""

    def tile(self) -> Sides:
        return per_axis(self.window_size)

    def macs(self, *, dim: int, grid: Sides) -> int:
        # as Swin, eq. (2), with N = hw after padding and G^2 = tokens of a grid: 4NC^2 + 2G^2NC
        return slots(self.tile(), grid) * self._macs_per_slot(dim)

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        return (slots(self.tile(), grid) - tokens(grid)) * self._macs_per_slot(dim)

    def _macs_per_slot(self, dim: int) -> int:
        return 4 * dim**2 + 2 * tokens(self.tile()) * dim

    def params(self, *, dim: int) -> int:
        # the two linear layers, and the table of the relative position bias
        layers = attention_params(dim, qkv_bias=self.qkv_bias)
        if self.position_bias == "none":
            return layers
        return layers + bias_table_params(self.tile(), heads=self.heads(dim))

    def build(self, dim: int) -> nn.Module:
        return GridAttention(
            dim,
            num_heads=self.heads(dim),
            window_size=self.tile(),
            qkv_bias=self.qkv_bias,
            position_bias=self.position_bias,
        )


class GridAttention(RelativeSelfAttention):
    """(B, H, W, C) -> (B, H, W, C): self-attention in each dilated window.

    Padding tokens are zeros and are attended to, as in window_attention.
    """

    def cut(self, grid: Sides) -> Cut:
        return Cut(tuple(map(Dilated, grid, self.window_size)))
