"""Multi-head self-attention over the tokens of a sequence (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.model.inference import eager, is_hooked_inside, unwatched
from hierarch.model.layers import Linear
from hierarch.model.masks import fitted
from hierarch.model.onednn import is_onednns
from hierarch.model.recomputing import recomputing_attention, trained_attention
from hierarch.model.training import trains

Masks = Sequence[tuple[int, Tensor | None]]
"""What is added to the logits, (1 or B, heads or 1, N, N or more), and for how many sequences."""


ELEMENTS = 1 << 21
"""Of the attention maps that are made at once, at most: 8 MiB in float32."""


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
        return (
            all(type(layer) is Linear for layer in linears)
            and trains(x, self.qkv.weight)
            and not is_hooked_inside(*linears)
            and all(weight.requires_grad for layer in linears for weight in layer.parameters())
        )

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (3, B, heads, N, d): queries, keys and values."""
        qkv: Tensor = self.qkv(x)
        # not by einops, here or below: it takes as long as a small window's attention
        return qkv.view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def join(self, heads: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, C)."""
        out: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
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
    multiply = _in_two_products if _wants_products(q, k) else F.scaled_dot_product_attention
    attend = partial(multiply, scale=scale)
    if len(added) == 1:
        return attend(q, k, v, attn_mask=added[0][1])
    counts = [count for count, _ in added]
    parts = zip(q.split(counts), k.split(counts), v.split(counts), added, strict=True)
    # heads of a token side by side, as torch's own kernels leave them, and as the next layer reads
    found = [attend(q, k, v, attn_mask=mask).transpose(1, 2) for q, k, v, (_, mask) in parts]
    return torch.cat(found).transpose(1, 2)


def _wants_products(q: Tensor, k: Tensor) -> bool:
    """Whether only the values count, and the attention maps are small, and faster made than not:
    torch's own attention is as slow in bfloat16 as in float32."""
    return (
        unwatched(q)  # before any size is asked for: an export must not
        and q.dtype is torch.bfloat16
        and is_onednns(q, k)
        and q.shape[:3].numel() * k.shape[2] <= ELEMENTS
    )


def _in_two_products(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None
) -> Tensor:
    """(B, heads, N, d) each -> (B, heads, N, d): softmax(q kᵀ scale + mask) v, with what is
    between the two matrix multiplications in float32."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    queries, keys, values = (x.flatten(0, 1) for x in (q, k, v))
    logits = torch.bmm(queries, keys.mT).view(*q.shape[:3], -1).float()
    if attn_mask is None:
        logits *= scale
    else:
        torch.add(attn_mask.float(), logits, alpha=scale, out=logits)
    attended = logits.softmax(-1).to(v.dtype).flatten(0, 1)
    return torch.bmm(attended, values).view(q.shape)
