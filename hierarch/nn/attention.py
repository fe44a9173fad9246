"""Multi-head self-attention over the tokens of a sequence (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

from torch import Tensor, nn

from hierarch.nn import functional, init


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, and a projection of the heads' outputs."""

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool, proj_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = init.linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = init.linear(dim, dim, bias=proj_bias)

    def attend(self, x: Tensor, masks: functional.Masks = ()) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return functional.self_attention(self, x, masks)

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (3, B, heads, N, d): queries, keys and values."""
        qkv = functional.linear(self.qkv, x)
        # not by einops, which takes as long as a small window's attention
        return qkv.view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def join(self, heads: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, C)."""
        return functional.linear(self.proj, heads.transpose(1, 2).flatten(2))
