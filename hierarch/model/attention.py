"""Multi-head self-attention over the tokens of a sequence (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.model.inference import eager, is_hooked, unwatched
from hierarch.model.layers import Linear
from hierarch.model.masks import fitted
from hierarch.model.recomputing import recomputing_attention, trained_attention
from hierarch.model.training import trains

Masks = Sequence[tuple[int, Tensor | None]]
"""What is added to the logits, (1 or B, heads or 1, N, N or more), and for how many sequences."""


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, and a projection of what the heads found."""

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool, proj_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim, bias=proj_bias)

    def attend(self, x: Tensor, masks: Masks) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        added = [(count, mask) for count, mask in masks if mask is not None]
        if len(added) == len(masks) and self._is_trained_whole(x):
            return trained_attention(x, self.num_heads, self.qkv, self.proj, added)
        return self.join(attention(self.split(x), masks))

    def _is_trained_whole(self, x: Tensor) -> bool:
        """Whether a gradient by all of it is wanted, and nobody looks inside."""
        linears = (self.qkv, self.proj)
        return trains(x, self.qkv.weight) and all(
            type(layer) is Linear
            and not is_hooked(layer)
            and all(weight.requires_grad for weight in layer.parameters())
            for layer in linears
        )

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (3, B, heads, N, d): queries, keys and values.

        In inference on a CPU in float32 where they are bfloat16: so torch's attention is faster.
        """
        qkv: Tensor = self.qkv(x)
        if qkv.dtype is torch.bfloat16 and unwatched(qkv):
            qkv = qkv.float()
        return rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads)

    def join(self, heads: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, C)."""
        joined = rearrange(heads, "b h n d -> b n (h d)")
        out: Tensor = self.proj(joined.to(self.proj.weight.dtype))
        return out


def attention(qkv: Tensor | Sequence[Tensor], masks: Masks, scale: float | None = None) -> Tensor:
    """Queries, keys and values, (B, heads, N, d) each -> (B, heads, N, d)."""
    q, k, v = qkv
    added = [
        (count, mask if mask is None else fitted(mask, q, keys=k.shape[2])) for count, mask in masks
    ]
    if eager(q) and any(mask is not None and mask.requires_grad for _, mask in added):
        return recomputing_attention(qkv, cast(Sequence[tuple[int, Tensor]], added), scale)
    # four dimensions: with five, torch takes the slow path, and ONNX refuses
    attend = partial(F.scaled_dot_product_attention, scale=scale)
    if len(added) == 1:
        return attend(q, k, v, attn_mask=added[0][1])
    counts = [count for count, _ in added]
    parts = zip(q.split(counts), k.split(counts), v.split(counts), added, strict=True)
    return torch.cat([attend(q, k, v, attn_mask=mask) for q, k, v, (_, mask) in parts])
