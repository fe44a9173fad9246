"""All windows of a map, taken out of it in one step and put back in one: where it trains on a CPU,
on a GPU, and where torch compiles it.

A compiler has one index to read then. What views make of a padded, rolled and cut map is more than
torch's can simplify in reasonable time where sizes are symbolic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from hierarch.model.by_size import kept_on_gpu
from hierarch.model.cut import Counts, Cut
from hierarch.spec.base import tokens


def gathered(x: Tensor, cut: Cut, mix: Callable[[Tensor, Counts], Tensor]) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): what `mix` makes of the windows of a map, (n, N, C) and their
    kinds."""
    batch, height, width, dim = x.shape
    slots, size, count = _slots(cut, batch, device=x.device), tokens(cut.window), batch * cut.count
    put, take = (_Put.apply, _Take.apply) if torch.is_grad_enabled() else (_put, _take)
    rows = put(x.reshape(-1, dim), slots, count * size, cut.pads)
    mixed = mix(rows.view(count, size, dim), cut.counts(batch))
    out = take(mixed.reshape(count * size, -1), slots, cut.pads)
    return cast(Tensor, out).view(batch, height, width, -1)


@kept_on_gpu
def _slots(cut: Cut, batch: int, *, device: torch.device) -> Tensor:
    return cut.slots(batch, device)


def _put(x: Tensor, slots: Tensor, count: int, pads: bool) -> Tensor:
    """(n, C) -> (slots, C): each row in its slot, and zeros where there is none."""
    out = (x.new_zeros if pads else x.new_empty)(count, x.shape[1])
    write(out, slots, x)
    return out


def _take(x: Tensor, slots: Tensor, pads: bool) -> Tensor:
    """(slots, C) -> (n, C): undoes `_put`. Only a gradient asks whether it `pads`."""
    return x.index_select(0, slots)


class _Put(torch.autograd.Function):
    """`_put`, whose gradient is `_take`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, count: int, pads: bool) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.pads = pads
        return _put(x, slots, count, pads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slots,) = ctx.saved_tensors
        return _Take.apply(grad, slots, ctx.pads), None, None, None


class _Take(torch.autograd.Function):
    """`_take`, whose gradient is `_put`: torch's own would be a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, pads: bool) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.count, ctx.pads = x.shape[0], pads
        return _take(x, slots, pads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slots,) = ctx.saved_tensors
        return _Put.apply(grad, slots, ctx.count, ctx.pads), None, None


def write(out: Tensor, places: Tensor, rows: Tensor) -> None:
    """out[places] = rows, by 16 bytes at a time where both are made of such: torch itself would put
    them in place number by number."""
    if not torch.compiler.is_compiling() and all(map(_is_wide, (out, rows))):
        out, rows = out.view(torch.complex128), rows.view(torch.complex128)
    out.index_copy_(0, places, rows)


def _is_wide(rows: Tensor) -> bool:
    if rows.device.type not in ("cpu", "cuda"):  # others may have no numbers of 16 bytes
        return False
    size = rows.element_size()
    begins, length = rows.storage_offset() * size, rows.shape[1] * size
    return bool(rows.is_contiguous() and begins % 16 == length % 16 == 0)
