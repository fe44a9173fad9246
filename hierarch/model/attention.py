"""Multi-head self-attention over the tokens of a sequence (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.model.layers import Linear


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, and a projection of what the heads found."""

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool, proj_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim, bias=proj_bias)

    def attend(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, C), and a mask to add to the logits, (B or 1, heads or 1, N, N) -> (B, N, C)."""
        q, k, v = self.split(x)
        mask = None if mask is None else mask.to(q.dtype)
        # four dimensions: with five, torch takes the slow path, and ONNX refuses
        return self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (3, B, heads, N, d): queries, keys and values."""
        qkv: Tensor = self.qkv(x)
        return rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads)

    def join(self, heads: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, C)."""
        out: Tensor = self.proj(rearrange(heads, "b h n d -> b n (h d)"))
        return out
