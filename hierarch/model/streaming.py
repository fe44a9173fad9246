"""A block run a few windows at a time, while they are in cache: what inference on a CPU does.

The result is that of the plain path but for rounding. Each token is read once and written once;
between the two, its window goes through norm, mixer, residual, norm, MLP and residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from hierarch.model.cut import Cut, Kind, within
from hierarch.spec.base import Pair

if TYPE_CHECKING:
    from hierarch.model.block import Block

TILE = 1536
"""Tokens that go through a block together, unless a block says otherwise."""


class WindowMixer(Protocol):
    """What a mixer offers whose spec says `independent_windows`."""

    def cut(self, grid: Pair) -> Cut:
        """How a grid is cut into windows."""

    def mix(self, windows: Tensor, cut: Cut, counts: Sequence[tuple[Kind, int]]) -> Tensor:
        """(n, N, C) -> (n, N, C): some of the cut's windows, each mixed within itself; `counts`
        says how many of which kind follow each other."""


def streamed(block: Block, x: Tensor, *, tile: int) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): the block's output, without a gradient, `tile` tokens at a
    time."""
    batch, height, width, dim = x.shape
    mixer = cast(WindowMixer, block.mixer)
    cut = mixer.cut((height, width))
    index, counts = cut.order(batch, (height, width))
    pads = cut.pads()
    rows = x.reshape(-1, dim)
    out = torch.empty_like(rows)
    step = max(1, tile // index.shape[1])
    for start in range(0, len(index), step):
        places = index[start : start + step]
        held = places.flatten()
        real = held >= 0 if pads else None
        tokens = rows.index_select(0, held.clamp(min=0) if pads else held)
        read = block.before(tokens)
        if real is not None:
            read = read.masked_fill(~real[:, None], 0)
        held_kinds = within(counts, start, start + len(places))
        mixed = mixer.mix(read.view(*places.shape, dim), cut, held_kinds).reshape(-1, dim)
        if real is not None:
            held, tokens, mixed = held[real], tokens[real], mixed[real]
        done = block.after(tokens, mixed)
        if done.dtype != out.dtype:
            out = out.to(done.dtype)
        out.index_copy_(0, held, done)
    return out.view(x.shape)
