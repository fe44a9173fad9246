"""Neighborhood attention: every token attends to the K x K tokens around it.

The sliding window of Swin's tables 5 and 6 (Ramachandran et al. 2019, arXiv:1906.05909), with the
borders of NATTEN (Hassani et al. 2022, arXiv:2204.07143, section 3): the neighborhood is moved
inside the map there, so that every token has the same number of neighbors. With a dilation, a token
knows only every d-th token of an axis, and its neighbors are those among them (DiNAT, Hassani & Shi
2022, arXiv:2209.15001).

There is no fused kernel: keys and values are copied once per neighbor, K² times, so that a training
step stores about 2K² maps per block. NATTEN's kernels need less memory.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.attended import Row, one
from hierarch.nn.attention import PositionBias, SelfAttention
from hierarch.nn.padding import symbolic_min
from hierarch.spec.base import Flag, Kernel
from hierarch.spec.grid import Sides, per_axis, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import HeadedSpec, attention_params, bias_table_params


@register
class NeighborhoodAttentionSpec(HeadedSpec):
    """Multi-head self-attention of every token to its neighborhood."""

    formula: ClassVar[str] = (
        "4NC² + 2K²NC; K = kernel_size, or on an axis of fewer than K·dilation tokens all that a "
        "token reaches"
    )
    paper: ClassVar[str] = (
        "Hassani et al. 2022, arXiv:2204.07143, section 3; Hassani & Shi 2022, arXiv:2209.15001"
    )
    no_weight_decay: ClassVar[tuple[str, ...]] = ("relative_position_bias_table",)

    type: Literal["neighborhood_attention"] = "neighborhood_attention"
    """Neighborhood attention, NAT's: a sliding window around every token."""
    kernel_size: Kernel = 7
    """Tokens along a side of the neighborhood; odd."""
    dilation: Annotated[int, Strict(), Field(ge=1, le=256)] = 1
    """Steps from one neighbor to the next; as published, 1 in every second block."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""
    position_bias: PositionBias = "relative"
    """relative: a learned bias per head and per offset of two tokens in a neighborhood."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # as Swin, eq. (2), with N = hw, and K^2 tokens of a neighborhood for M^2: 4NC^2 + 2K^2NC
        along = (min(self.kernel_size, max(1, n // self.dilation)) for n in grid)
        return tokens(grid) * (4 * dim**2 + 2 * math.prod(along) * dim)

    def params(self, *, dim: int) -> int:
        # the two linear layers, and the table of the relative position bias
        layers = attention_params(dim, qkv_bias=self.qkv_bias)
        if self.position_bias == "none":
            return layers
        return layers + bias_table_params(per_axis(self.kernel_size), heads=self.heads(dim))

    def build(self, dim: int) -> nn.Module:
        return NeighborhoodAttention(
            dim,
            num_heads=self.heads(dim),
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            qkv_bias=self.qkv_bias,
            position_bias=self.position_bias,
        )


class NeighborhoodAttention(SelfAttention):
    """(B, H, W, C) -> (B, H, W, C): N neighborhoods, with one query each."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kernel_size: int,
        dilation: int,
        qkv_bias: bool,
        position_bias: PositionBias,
    ) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.relative_position_bias_table: nn.Parameter | None = None
        if position_bias == "relative":
            table = torch.empty((2 * kernel_size - 1) ** 2, num_heads)
            self.relative_position_bias_table = nn.Parameter(table)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.relative_position_bias_table is not None:
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        # heads are merged into the batch, and neighborhoods take attention's axis of heads: so the
        # gathered keys and values are contiguous, and K² maps are not copied again
        q, k, v = rearrange(self.split(x.flatten(1, 2)), "qkv b heads n d -> qkv (b heads) n d")
        reach, device = (self.kernel_size, self.dilation), x.device
        rows, columns = (neighbors(n, *reach, device=device) for n in (h, w))
        index = over_both_axes(rows * w, columns)
        bias = self.position_bias(rows, columns)
        masks = [] if bias is None else [(q.shape[0], bias.repeat(b, 1, 1, 1))]
        mixed = functional.attention(q[:, :, None], k[:, index], v[:, index], masks)
        heads = rearrange(mixed, "(b heads) 1 (n d) -> b heads n d", b=b, n=h * w)
        return self.join(heads).view_as(x)

    def row(self, grid: Sides, token: int) -> Row:
        reach, cpu = (self.kernel_size, self.dilation), torch.device("cpu")
        rows, columns = (neighbors(size, *reach, device=cpu) for size in grid)
        keys = over_both_axes(rows * grid[1], columns)[token]
        # attention has heads for sequences here, and tokens for heads: one query each
        return Row((slice(None), one(token), one(0)), keys)

    def position_bias(self, rows: Tensor, columns: Tensor) -> Tensor | None:
        """(heads, N, 1, K*K): the bias of each logit, by the offset of the key from its query."""
        if self.relative_position_bias_table is None:
            return None
        last = self.kernel_size - 1
        dy, dx = (offsets(n) // self.dilation + last for n in (rows, columns))
        bias = self.relative_position_bias_table[over_both_axes(dy * (2 * last + 1), dx)]
        return rearrange(bias, "n k heads -> heads n 1 k").contiguous()

    def bias_by_offset(self, grid: Sides) -> Tensor | None:
        side = 2 * self.kernel_size - 1
        table = self.relative_position_bias_table
        return None if table is None else table.t().reshape(-1, side, side)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}"


def neighbors(size: int, kernel_size: int, dilation: int, *, device: torch.device) -> Tensor:
    """(size, K): the positions of the K neighbors of each position on an axis, itself included."""
    fewest = -symbolic_min(-1, -(size // dilation))  # that a position reaches: max(1, size // d)
    count = symbolic_min(kernel_size, fewest)
    positions = torch.arange(size, device=device)
    place = positions // dilation  # among those that it reaches, of which `start` is the first
    start = positions - place * dilation
    reached = (size - start + (dilation - 1)) // dilation
    # at both ends the neighborhood is moved inside the axis
    first = torch.minimum(place - count // 2, reached - count).clamp(min=0)
    return start[:, None] + (first[:, None] + torch.arange(count, device=device)) * dilation


def offsets(axis: Tensor) -> Tensor:
    """(size, K) -> (size, K): the offset of each neighbor from its position."""
    return axis - torch.arange(axis.shape[0], device=axis.device)[:, None]


def over_both_axes(rows: Tensor, columns: Tensor) -> Tensor:
    """(H, K), (W, L) -> (H*W, K*L): the sum of every pair of entries of both axes."""
    return rearrange(rows[:, None, :, None] + columns[None, :, None, :], "h w k l -> (h w) (k l)")
