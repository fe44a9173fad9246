"""Attention whose backward pass recomputes the attention maps instead of keeping them.

On a CPU, torch's attention keeps them if the mask needs a gradient, as a learned position bias
does: (B, heads, N, N), more than queries, keys and values together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.engine import training
from hierarch.engine.conditions import not_cpu_training, not_of_type
from hierarch.engine.onednn import not_onednn, product
from hierarch.engine.seam import Refusal, way
from hierarch.engine.torch_private import softmax_backward
from hierarch.engine.training import Grads, Sums, by_autograd, frozen
from hierarch.nn.attention import SelfAttention
from hierarch.nn.functional import Masks

MAX_RECOMPUTED_ELEMENTS = 1 << 19
"""Numbers of the attention maps that are recomputed at once: 2 MiB in float32."""


def recomputing_attention(
    qkv: Sequence[Tensor], masks: Sequence[tuple[int, Tensor]], scale: float | None = None
) -> Tensor:
    """Queries, keys and values, (B, heads, N, d) each -> (B, heads, N, d).

    `masks`: what is added to the logits, (1 or n, heads or 1, N, N), of n sequences at a time.
    """
    counts = tuple(count for count, _ in masks)
    added = [mask for _, mask in masks]
    scale = qkv[0].shape[-1] ** -0.5 if scale is None else scale
    out: Tensor = _Attention.apply(counts, scale, *qkv, *added)
    return out


class _Attention(torch.autograd.Function):
    """Keeps its inputs: queries, keys, values, and the masks."""

    @staticmethod
    def forward(ctx: Any, counts: tuple[int, ...], scale: float, *tensors: Tensor) -> Tensor:
        ctx.counts, ctx.scale = counts, scale
        ctx.save_for_backward(*tensors)
        qkv, masks = tensors[:3], tensors[3:]
        # torch keeps the maps if the mask needs a gradient, so it gets one that needs none
        out = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask.detach(), scale=scale)
            for (q, k, v), mask in zip(_parts(qkv, counts), masks, strict=True)
        ]
        return out[0] if len(out) == 1 else torch.cat(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        tensors = ctx.saved_tensors
        qkv, masks = tensors[:3], tensors[3:]
        if torch.is_grad_enabled():
            out = _explicit(qkv, ctx.counts, masks, ctx.scale)
            return None, None, *by_autograd(out, tensors, grad)
        of_qkv = [torch.empty_like(x) for x in qkv]
        parts = zip(_parts(qkv, ctx.counts), masks, strict=True)
        into = _parts([grad, *of_qkv], ctx.counts)
        of_masks = [
            _backward(part, mask, ctx.scale, back, of_part)
            for (part, mask), (back, *of_part) in zip(parts, into, strict=True)
        ]
        return None, None, *of_qkv, *of_masks


def _parts(tensors: Sequence[Tensor], counts: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """The tensors of so many sequences, then of so many more."""
    return list(zip(*(torch.split(x, list(counts)) for x in tensors), strict=True))


def _explicit(
    qkv: Sequence[Tensor], counts: Sequence[int], masks: Sequence[Tensor], scale: float
) -> Tensor:
    """softmax(q kᵀ scale + mask) v, in operators whose gradients have gradients."""
    parts = zip(_parts(qkv, counts), masks, strict=True)
    return torch.cat([torch.softmax(q * scale @ k.mT + mask, -1) @ v for (q, k, v), mask in parts])


def _backward(
    qkv: Sequence[Tensor], mask: Tensor, scale: float, grad: Tensor, into: Sequence[Tensor]
) -> Tensor:
    """The gradient of softmax(q kᵀ scale + mask) v by the mask; those by q, k and v go `into`."""
    batch, heads, size, _ = grad.shape
    total = torch.zeros_like(mask)
    step = max(1, MAX_RECOMPUTED_ELEMENTS // (heads * size * qkv[1].shape[2]))
    for start in range(0, batch, step):
        chunk = slice(start, start + step)
        part = chunk if mask.shape[0] > 1 else slice(None)
        q, k, v, back, *found = (x[chunk] for x in (*qkv, grad, *into))
        _back((q, k, v), mask[part], scale, back, found, total[part])
    return total


def _back(
    qkv: Sequence[Tensor],
    mask: Tensor,
    scale: float,
    grad: Tensor,
    into: Sequence[Tensor],
    of_mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Writes the gradients by q, k and v `into`, and adds that by the mask to `of_mask`; returns
    the attention maps and the values, (B * heads, N, N) and (B * heads, N, d)."""
    heads = grad.shape[1]

    def apart(x: Tensor) -> Tensor:
        return x.view(-1, heads, *x.shape[1:])

    q, k, v, back = (x.flatten(0, 1) for x in (*qkv, grad))
    logits = torch.add(mask, apart(torch.bmm(q, k.mT)), alpha=scale)
    attended = torch.softmax(logits, dim=-1).flatten(0, 1)
    of_attended = torch.bmm(back, v.mT)
    # autocast makes the softmax float32
    of_logits = softmax_backward(of_attended.to(attended.dtype), attended)
    of_mask += apart(of_logits).sum_to_size(of_mask.shape)
    dq, dk, dv = into
    torch.mul(apart(torch.bmm(of_logits, k)), scale, out=dq)
    torch.mul(apart(torch.bmm(of_logits.mT, q)), scale, out=dk)
    dv.copy_(apart(torch.bmm(attended.mT, back)))
    return attended, v


def refuses_attend(layer: SelfAttention, x: Tensor, masks: Masks = ()) -> Refusal | None:
    """Takes self-attention with masks, all of it trained, in training on a CPU."""
    if refusal := not_cpu_training(x):
        return refusal
    if not masks or any(mask is None for _, mask in masks):
        return Refusal("no mask")
    return (
        not_of_type(layer.qkv, nn.Linear)
        or not_of_type(layer.proj, nn.Linear)
        or frozen(layer.qkv)
        or frozen(layer.proj)
        or not_onednn(x, layer.qkv.weight)
        or not_onednn(x, layer.proj.weight)
    )


@way("recomputed", refuses_attend)
def run_attend(layer: SelfAttention, x: Tensor, masks: Masks = ()) -> Tensor:
    counts, added = zip(*masks, strict=True)
    weights = (layer.qkv.weight, layer.qkv.bias, layer.proj.weight, layer.proj.bias)
    out: Tensor = _SelfAttention.apply(x, layer.num_heads, counts, *weights, *added)
    return out


class _SelfAttention(torch.autograd.Function):
    """Keeps its input, queries, keys and values. Either pass takes a tile of tokens at a time."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heads: int, counts: tuple[int, ...], *tensors: Tensor
    ) -> Tensor:
        (wide, wide_bias, narrow, narrow_bias), masks = tensors[:4], tensors[4:]
        ctx.heads, ctx.counts = heads, counts
        kept, out = [], x.new_empty(x.shape)
        for i, tile, part in _tiles(x, counts, masks):
            kept.append(product(x[tile], wide, wide_bias))
            q, k, v = _split(kept[-1], heads)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=masks[i][part].detach())
            out[tile] = product(_joined(mixed), narrow, narrow_bias)
        ctx.save_for_backward(x, *tensors, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        count, saved = len(ctx.needs_input_grad) - 2, ctx.saved_tensors
        (x, *tensors), kept = saved[:count], saved[count:]
        (wide, wide_bias, narrow, narrow_bias), masks = tensors[:4], tensors[4:]
        scale = (x.shape[-1] // ctx.heads) ** -0.5
        if torch.is_grad_enabled():
            qkv = _split(F.linear(x, wide, wide_bias), ctx.heads)
            mixed = _joined(_explicit(qkv, ctx.counts, masks, scale))
            out = F.linear(mixed, narrow, narrow_bias)
            dx, *rest = by_autograd(out, (x, *tensors), grad)
            return dx, None, None, *rest
        sums, of_masks = Sums(tensors[:4]), [torch.zeros_like(mask) for mask in masks]
        dx = torch.empty_like(x)
        for (i, tile, part), qkv in zip(_tiles(x, ctx.counts, masks), kept, strict=True):
            back = _split(product(grad[tile], narrow.T), ctx.heads, parts=1)[0]
            dqkv = torch.empty_like(qkv)
            q_k_v, into = _split(qkv, ctx.heads), _split(dqkv, ctx.heads)
            attended, values = _back(q_k_v, masks[i][part], scale, back, into, of_masks[i][part])
            mixed = torch.bmm(attended, values).view(back.shape)
            sums.add_linear(2, grad[tile], _joined(mixed))
            sums.add_linear(0, dqkv, x[tile])
            dx[tile] = product(dqkv, wide.T)
        return dx, None, None, *sums.found, *of_masks


def _tiles(
    x: Tensor, counts: Sequence[int], masks: Sequence[Tensor]
) -> list[tuple[int, slice, slice]]:
    """Sequences that go together: the number of their mask, their range, and that of the mask."""
    found, first = [], 0
    for i, count in enumerate(counts):
        tiles = min(count, max(1, round(count * x.shape[1] / training.TILE_TOKENS)))
        stops = [count * tile // tiles for tile in range(tiles + 1)]
        for start, stop in pairwise(stops):
            part = slice(start, stop) if len(masks[i]) > 1 else slice(None)
            found.append((i, slice(first + start, first + stop), part))
        first += count
    return found


def _split(x: Tensor, heads: int, *, parts: int = 3) -> Sequence[Tensor]:
    """(B, N, parts * C) -> (B, heads, N, d) of each part."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _joined(x: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, C)."""
    return x.transpose(1, 2).flatten(2)
