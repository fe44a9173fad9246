"""Multi-head self-attention over the tokens of a sequence (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.model.layers import Linear
from hierarch.model.recomputing import recomputing_attention

Masks = Sequence[tuple[int, Tensor | None]]
"""What is added to the logits, (1 or B, heads or 1, N, N), and for how many sequences."""


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, and a projection of what the heads found."""

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool, proj_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim, bias=proj_bias)

    def attend(self, x: Tensor, masks: Masks) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.join(attention(self.split(x), masks))

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (3, B, heads, N, d): queries, keys and values."""
        qkv: Tensor = self.qkv(x)
        return rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads)

    def join(self, heads: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, C)."""
        out: Tensor = self.proj(rearrange(heads, "b h n d -> b n (h d)"))
        return out


def attention(qkv: Tensor | Sequence[Tensor], masks: Masks, scale: float | None = None) -> Tensor:
    """Queries, keys and values, (B, heads, N, d) each -> (B, heads, N, d)."""
    q, k, v = qkv
    if len(masks) == 1:
        return _attention(q, k, v, masks[0][1], scale)
    counts = [count for count, _ in masks]
    parts = zip(q.split(counts), k.split(counts), v.split(counts), masks, strict=True)
    return torch.cat([_attention(q, k, v, mask, scale) for q, k, v, (_, mask) in parts])


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    mask = None if mask is None else mask.to(q.dtype)
    if mask is not None and mask.requires_grad and q.device.type == "cpu":
        return recomputing_attention(q, k, v, mask, scale)
    # four dimensions: with five, torch takes the slow path, and ONNX refuses
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
