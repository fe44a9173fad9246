"""Attention whose backward pass works out the attention maps again instead of keeping them.

On a CPU, torch's attention keeps them where a gradient of the mask is wanted, as a learned
position bias does: (B, heads, N, N), more than queries, keys and values together.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ELEMENTS = 1 << 21
"""Of the attention maps that are worked out at once: 8 MiB in float32."""


def recomputing_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None = None
) -> Tensor:
    """(B, heads, N, d), three times, and (1 or B, heads or 1, N, N) -> (B, heads, N, d)."""
    out: Tensor = _Attention.apply(q, k, v, mask, q.shape[-1] ** -0.5 if scale is None else scale)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.scale = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask = ctx.saved_tensors
        step = max(1, ELEMENTS // (q.shape[1] * q.shape[2] * k.shape[2]))
        each = mask.shape[0] > 1
        found: list[tuple[Tensor, ...]] = []
        for start in range(0, q.shape[0], step):
            part = slice(start, start + step)
            held = mask[part] if each else mask
            found.append(_backward(q[part], k[part], v[part], held, grad[part], ctx.scale))
        dq, dk, dv, dmask = zip(*found, strict=True)
        whole = torch.cat(dmask) if each else torch.stack(dmask).sum(0)
        return torch.cat(dq), torch.cat(dk), torch.cat(dv), whole, None


def _backward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, grad: Tensor, scale: float
) -> tuple[Tensor, ...]:
    """The gradients of softmax(q kᵀ scale + mask) v."""
    attended = torch.softmax(q * scale @ k.mT + mask, dim=-1)
    dv = attended.mT @ grad
    back = grad @ v.mT
    # of the softmax: P (dP - the sum of P dP over the keys)
    dlogits = attended * (back - (attended * back).sum(-1, keepdim=True))
    dq, dk = dlogits @ k * scale, dlogits.mT @ q * scale
    return dq, dk, dv, dlogits.sum_to_size(mask.shape)
