"""Attention whose backward pass works out the attention maps again instead of keeping them.

On a CPU, torch's attention keeps them where a gradient of the mask is wanted, as a learned
position bias does: (B, heads, N, N), more than queries, keys and values together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.model.onednn import onednn_linear
from hierarch.model.training import TILE, Grads, Sums, by_autograd

ELEMENTS = 1 << 19
"""Of the attention maps that are worked out at once: 2 MiB in float32."""


def recomputing_attention(
    qkv: Tensor | Sequence[Tensor],
    masks: Sequence[tuple[int, Tensor]],
    scale: float | None = None,
) -> Tensor:
    """Queries, keys and values, (B, heads, N, d) each -> (B, heads, N, d).

    `masks`: what is added to the logits, (1 or n, heads or 1, N, N), of n sequences at a time.
    """
    parts = [qkv] if isinstance(qkv, Tensor) else list(qkv)
    counts = tuple(count for count, _ in masks)
    added = [mask for _, mask in masks]
    scale = parts[0].shape[-1] ** -0.5 if scale is None else scale
    out: Tensor = _Attention.apply(counts, scale, len(parts), *parts, *added)
    return out


class _Attention(torch.autograd.Function):
    """Keeps its inputs: one tensor of queries, keys and values, or three, then the masks."""

    @staticmethod
    def forward(
        ctx: Any, counts: tuple[int, ...], scale: float, split: int, *tensors: Tensor
    ) -> Tensor:
        ctx.counts, ctx.scale, ctx.split = counts, scale, split
        ctx.save_for_backward(*tensors)
        qkv, masks = _three(tensors[:split]), tensors[split:]
        # a mask that wants a gradient is what sends torch down the path that keeps the maps
        out = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask.detach(), scale=scale)
            for (q, k, v), mask in zip(_parts(qkv, counts), masks, strict=True)
        ]
        return out[0] if len(out) == 1 else torch.cat(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        tensors = ctx.saved_tensors
        qkv, masks = _three(tensors[: ctx.split]), tensors[ctx.split :]
        parts = zip(_parts(qkv, ctx.counts), masks, strict=True)
        if torch.is_grad_enabled():
            out = _explicit(qkv, ctx.counts, masks, ctx.scale)
            return None, None, None, *by_autograd(out, tensors, grad)
        found = [torch.empty_like(x) for x in tensors[: ctx.split]]
        into = _parts([grad, *_three(found)], ctx.counts)
        for_masks = [
            _backward(part, mask, ctx.scale, back, found_part)
            for (part, mask), (back, *found_part) in zip(parts, into, strict=True)
        ]
        return None, None, None, *found, *for_masks


def _three(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Queries, keys and values, of one tensor that holds them or of the three."""
    return tensors[0].unbind(0) if len(tensors) == 1 else tensors


def _parts(tensors: Sequence[Tensor], counts: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """The tensors of so many sequences, then of so many more."""
    return list(zip(*(torch.split(x, list(counts)) for x in tensors), strict=True))


def _explicit(
    qkv: Sequence[Tensor], counts: Sequence[int], masks: Sequence[Tensor], scale: float
) -> Tensor:
    """softmax(q kᵀ scale + mask) v, as autograd likes to see it."""
    parts = zip(_parts(qkv, counts), masks, strict=True)
    return torch.cat([torch.softmax(q * scale @ k.mT + mask, -1) @ v for (q, k, v), mask in parts])


def _backward(
    qkv: Sequence[Tensor], mask: Tensor, scale: float, grad: Tensor, into: Sequence[Tensor]
) -> Tensor:
    """The gradient of softmax(q kᵀ scale + mask) v by the mask; those by q, k and v go `into`."""
    batch, heads, size, _ = grad.shape
    total = torch.zeros_like(mask)
    step = max(1, ELEMENTS // (heads * size * qkv[1].shape[2]))
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
    of_logits = torch._softmax_backward_data(of_attended, attended, -1, attended.dtype)
    of_mask += apart(of_logits).sum_to_size(of_mask.shape)
    dq, dk, dv = into
    torch.mul(apart(torch.bmm(of_logits, k)), scale, out=dq)
    torch.mul(apart(torch.bmm(of_logits.mT, q)), scale, out=dk)
    dv.copy_(apart(torch.bmm(attended.mT, back)))
    return attended, v


def trained_attention(
    x: Tensor, heads: int, qkv: nn.Linear, proj: nn.Linear, masks: Sequence[tuple[int, Tensor]]
) -> Tensor:
    """(B, N, C) -> (B, N, C): queries, keys and values from one linear layer, attention, and
    another linear layer, for what `trains`; masks as above."""
    counts, added = zip(*masks, strict=True)
    weights = (qkv.weight, qkv.bias, proj.weight, proj.bias)
    out: Tensor = _SelfAttention.apply(x, heads, counts, *weights, *added)
    return out


class _SelfAttention(torch.autograd.Function):
    """Keeps its input, and queries, keys and values: a tile of tokens goes through it at
    a time, either way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heads: int, counts: tuple[int, ...], *tensors: Tensor
    ) -> Tensor:
        (wide, wide_bias, narrow, narrow_bias), masks = tensors[:4], tensors[4:]
        ctx.heads, ctx.counts = heads, counts
        kept, out = [], x.new_empty(x.shape)
        for i, tile, part in _tiles(x, counts, masks):
            kept.append(onednn_linear(x[tile], wide, wide_bias))
            q, k, v = _split(kept[-1], heads)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=masks[i][part].detach())
            out[tile] = onednn_linear(_joined(mixed), narrow, narrow_bias)
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
            back = _split(onednn_linear(grad[tile], narrow.T), ctx.heads, parts=1)[0]
            dqkv = torch.empty_like(qkv)
            q_k_v, into = _split(qkv, ctx.heads), _split(dqkv, ctx.heads)
            attended, values = _back(q_k_v, masks[i][part], scale, back, into, of_masks[i][part])
            mixed = torch.bmm(attended, values).view(back.shape)
            sums.add_linear(2, grad[tile], _joined(mixed))
            sums.add_linear(0, dqkv, x[tile])
            dx[tile] = onednn_linear(dqkv, wide.T)
        return dx, None, None, *sums.found, *of_masks


def _tiles(
    x: Tensor, counts: Sequence[int], masks: Sequence[Tensor]
) -> list[tuple[int, slice, slice]]:
    """Sequences that go together: which mask is theirs, which they are, and what of the mask."""
    found, first = [], 0
    for i, count in enumerate(counts):
        tiles = min(count, max(1, round(count * x.shape[1] / TILE)))
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
