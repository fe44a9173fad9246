"""Attention in inference, and in programs: sequences of one mask at a time, without a mask for each
sequence; and under the transforms of torch.func, by operators that they know."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hierarch.engine.conditions import (
    not_cpu_inference,
    not_eager_on_cpu,
    not_eager_or_compiled,
    transformed,
)
from hierarch.engine.onednn import not_onednn
from hierarch.engine.recomputing import recomputing_attention
from hierarch.engine.seam import Refusal, way
from hierarch.nn import functional
from hierarch.nn.functional import Masks

attention = functional.attention
"""The definition."""
MAX_MAP_ELEMENTS = 1 << 21
"""Numbers of all attention maps that are materialized at once: 8 MiB in float32."""
FEW_MAP_ELEMENTS = 1 << 19
"""Numbers of all attention maps, up to which a mask for each sequence costs less than another call
for each mask, most of all for few and small windows."""


def refuses_recomputing(
    q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None
) -> Refusal | None:
    """Takes attention on a CPU whose mask needs a gradient, for which torch keeps all maps."""
    if not torch.is_grad_enabled() or not any(m is not None and m.requires_grad for _, m in masks):
        return Refusal("no gradient of a mask", inapplicable=True)
    return not_eager_on_cpu(q)


@way("maps recomputed", refuses_recomputing)
def run_recomputing(
    q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None
) -> Tensor:
    added = [(count, mask.to(q.dtype)) for count, mask in masks if mask is not None]
    return _joined(recomputing_attention([q, k, v], added, scale))


def refuses_by_mask(
    q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None
) -> Refusal | None:
    return not_eager_or_compiled(q)


@way("mask by mask", refuses_by_mask)
def run_by_mask(
    q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None
) -> Tensor:
    # four dimensions each: with five, torch takes a slow path
    attend = partial(
        two_products if materializes(q, k) else F.scaled_dot_product_attention, scale=scale
    )
    added = [(count, None if mask is None else mask.to(q.dtype)) for count, mask in masks]
    if len(added) < 2:
        return _joined(attend(q, k, v, attn_mask=added[0][1] if added else None))
    each = [mask.expand(count, -1, -1, -1) for count, mask in added if mask is not None]
    if len(each) == len(added) and has_few_maps(q, k):
        return _joined(attend(q, k, v, attn_mask=torch.cat(each)))
    counts = [count for count, _ in added]
    parts = zip(*(x.split_with_sizes(counts) for x in (q, k, v)), added, strict=True)
    # with the heads of a token side by side, as torch's kernels leave them
    out = [attend(q, k, v, attn_mask=mask).transpose(1, 2) for q, k, v, (_, mask) in parts]
    return torch.cat(out).flatten(2)


def refuses_by_operators(
    q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None
) -> Refusal | None:
    """Takes what `torch.func` transforms: on a CPU torch's kernel has no forward-mode derivative,
    no rule to batch its gradient, and no gradient of a mask that only the caller differentiates."""
    if torch.compiler.is_compiling() or not transformed():
        return Refusal("neither torch.func nor forward-mode autograd", inapplicable=True)
    return None


@way("by operators", refuses_by_operators)
def run_by_operators(
    q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None
) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return attention(q, k, v, masks, scale)


def _joined(heads: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return heads.transpose(1, 2).flatten(2)


def has_few_maps(q: Tensor, k: Tensor) -> bool:
    """Whether a CPU runs eagerly, on `FEW_MAP_ELEMENTS` at most."""
    return not not_eager_on_cpu(q) and q.shape[:3].numel() * k.shape[2] <= FEW_MAP_ELEMENTS


def materializes(q: Tensor, k: Tensor) -> bool:
    """Whether two matrix multiplications beat the fused kernel: in bfloat16 with small attention
    maps, where torch's kernel is as slow as in float32."""
    return (
        not not_cpu_inference(q)
        and q.dtype is torch.bfloat16
        and not not_onednn(q, k)
        and q.shape[:3].numel() * k.shape[2] <= MAX_MAP_ELEMENTS
    )


def two_products(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None
) -> Tensor:
    """(B, heads, N, d) each -> (B, heads, N, d): softmax(q kᵀ scale + mask) v, in float32 between
    the two matrix multiplications."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    queries, keys, values = (x.flatten(0, 1) for x in (q, k, v))
    logits = torch.bmm(queries, keys.mT).view(*q.shape[:3], -1).float()
    if attn_mask is None:
        logits *= scale
    else:
        torch.add(attn_mask.float(), logits, alpha=scale, out=logits)
    attended = logits.softmax(-1).to(v.dtype).flatten(0, 1)
    return torch.bmm(attended, values).view(q.shape)
