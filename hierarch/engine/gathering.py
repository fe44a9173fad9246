"""All windows of a map, taken out by one index and put back by it, with a cheap gradient: on a CPU,
on a GPU, and in programs of torch.compile."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from hierarch.engine.conditions import not_eager_or_compiled
from hierarch.engine.seam import Refusal, way
from hierarch.engine.torch_private import is_known
from hierarch.nn import functional
from hierarch.nn.cut import Cut
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec.grid import tokens


def refuses_gathered(mixer: WindowMixer, x: Tensor) -> Refusal | None:
    return not_eager_or_compiled(x)


@way("gathered", refuses_gathered)
def run_gathered(mixer: WindowMixer, x: Tensor) -> Tensor:
    batch, *grid, dim = x.shape
    cut = mixer.cut(tuple(grid))
    slots = functional.constant(Cut.slots, cut, batch, device=x.device)
    size, count = tokens(cut.window), batch * cut.count
    pads = has_padding(cut)
    put, take = (_Put.apply, _Take.apply) if torch.is_grad_enabled() else (_put, _take)
    rows = put(x.reshape(-1, dim), slots, count * size, pads)
    runs = [(kind, number) for kind, number in cut.runs(batch) if number]
    mixed = mixer.mix(rows.view(count, size, dim), cut, runs)
    out = take(mixed.reshape(count * size, -1), slots, pads)
    return cast(Tensor, out).view(batch, *grid, -1)


def has_padding(cut: Cut) -> bool:
    """Whether there are, or for some symbolic size may be, slots without a token."""
    return not all(is_known(axis.count * axis.window == axis.size) for axis in cut.axes)


def _put(x: Tensor, slots: Tensor, count: int, pads: bool) -> Tensor:
    """(n, C) -> (slots, C): each row in its slot, and zeros where there is none."""
    out = (x.new_zeros if pads else x.new_empty)(count, x.shape[1])
    write(out, slots, x)
    return out


def _take(x: Tensor, slots: Tensor, pads: bool) -> Tensor:
    """(slots, C) -> (n, C): undoes `_put`. `pads` matters to the gradient alone."""
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
    """out[places] = rows, by 16 bytes at a time where rows are multiples of that: torch copies
    number by number."""
    if not torch.compiler.is_compiling() and all(map(_is_wide, (out, rows))):
        out, rows = out.view(torch.complex128), rows.view(torch.complex128)
    out.index_copy_(0, places, rows)


def _is_wide(rows: Tensor) -> bool:
    if rows.device.type not in ("cpu", "cuda"):  # others may have no numbers of 16 bytes
        return False
    size = rows.element_size()
    begins, length = rows.storage_offset() * size, rows.shape[1] * size
    return bool(rows.is_contiguous() and begins % 16 == length % 16 == 0)
