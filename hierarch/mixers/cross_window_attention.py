"""Cross-shaped window attention (CSWin Transformer, Dong et al. 2021, arXiv:2107.00652).

Some heads attend in vertical stripes and the others in horizontal ones, as wide as `stripe_width`
and as long as the map; together they see a cross. Values are also convolved within their stripe,
which says where a token is (LePE, section 3.3).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.mixers.depthwise_conv import DepthwiseConv
from hierarch.nn import functional, init
from hierarch.nn.cut import Cut, Runs, shifted_cut
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, slots, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import HeadedSpec, attention_params

LEPE_KERNEL = 3


@register
class CrossWindowAttentionSpec(HeadedSpec):
    """Multi-head self-attention in stripes across the map: half of the heads, rounded up, in
    vertical ones, and the others in horizontal ones. A map is padded to whole stripes by zeros."""

    formula: ClassVar[str] = (
        "4NC² + Σ(2M + 9)N'C', over both directions; M = tokens of a stripe, N' = N padded to "
        "stripes, C' = the direction's channels"
    )
    paper: ClassVar[str] = "Dong et al. 2021, arXiv:2107.00652, sections 3.2 and 3.3"

    type: Literal["cross_window_attention"] = "cross_window_attention"
    """Cross-shaped window attention, CSWin Transformer's."""
    stripe_width: Annotated[int, Strict(), Field(ge=1, le=64)] | None = 7
    """Tokens across a stripe. null: all heads attend to the whole map, as in the published last
    stage."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""

    def branches(self, dim: int, grid: Sides) -> list[tuple[int, Sides]]:
        """(heads, stripe) for each direction that has heads, on a grid."""
        (h, w), heads, width = grid, self.heads(dim), self.stripe_width
        if width is None:
            return [(heads, grid)]
        halves = [((heads + 1) // 2, (h, width)), (heads // 2, (width, w))]
        return [(count, stripe) for count, stripe in halves if count]

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 4 * tokens(grid) * dim**2 + self._mixing(dim, grid)

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        return self._mixing(dim, grid, but=tokens(grid))

    def _mixing(self, dim: int, grid: Sides, *, but: int = 0) -> int:
        # QKᵀ, AV and the convolution of V, for each slot of a stripe `but` some
        per_head = dim // self.heads(dim)
        return sum(
            (slots(stripe, grid) - but) * (2 * tokens(stripe) + LEPE_KERNEL**2) * heads * per_head
            for heads, stripe in self.branches(dim, grid)
        )

    def params(self, *, dim: int) -> int:
        return attention_params(dim, qkv_bias=self.qkv_bias) + (LEPE_KERNEL**2 + 1) * dim

    def tile(self) -> Sides:
        return (self.stripe_width or 1, self.stripe_width or 1)

    def build(self, dim: int) -> nn.Module:
        return CrossWindowAttention(self, dim)


class CrossWindowAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: CrossWindowAttentionSpec, dim: int) -> None:
        super().__init__()
        per_head = dim // spec.heads(dim)
        branches = spec.branches(dim, (0, 0))  # 0 for a side that is as long as the map
        self.widths = [heads * per_head for heads, _ in branches]
        self.qkv = init.linear(dim, 3 * dim, bias=spec.qkv_bias)
        self.attns = nn.ModuleList(
            Stripes(heads * per_head, num_heads=heads, stripe=stripe) for heads, stripe in branches
        )
        self.proj = init.linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = functional.linear(self.qkv, x).view(*x.shape[:3], 3, -1)
        parts = qkv.split_with_sizes(self.widths, dim=-1)
        mixed = [attn(part.flatten(-2)) for attn, part in zip(self.attns, parts, strict=True)]
        return functional.linear(self.proj, torch.cat(mixed, dim=-1))


class Stripes(WindowMixer):
    """(B, H, W, 3C) -> (B, H, W, C): attention of queries, keys and values within stripes."""

    def __init__(self, dim: int, *, num_heads: int, stripe: Sides) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.stripe = stripe
        self.get_v = DepthwiseConv(dim, kernel_size=LEPE_KERNEL, bias=True)

    def cut(self, grid: Sides) -> Cut:
        window = [side or length for side, length in zip(self.stripe, grid, strict=True)]
        return shifted_cut(grid, window, (0, 0))

    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        n, size, _ = windows.shape
        q, k, v = windows.view(n, size, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        positions: Tensor = self.get_v(windows.view(n, *cut.window, 3, -1)[..., 2, :])
        return functional.attention(q, k, v, ()) + positions.flatten(1, 2)

    def extra_repr(self) -> str:
        return f"stripe={self.stripe}, num_heads={self.num_heads}"
