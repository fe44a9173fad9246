"""Blocks run a few windows at a time, while they are in cache: what inference on a CPU does.

The result is that of the plain path but for rounding. Each token is read once and written once;
between the two, its window goes through norm, mixer, residual, norm, MLP and residual.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from hierarch.model.by_size import ENTRIES
from hierarch.model.cut import Cut, Kind, Order, within
from hierarch.model.gathering import write
from hierarch.model.inference import is_hooked_inside, unwatched
from hierarch.model.side_by_side import each, threads_for
from hierarch.spec.base import Pair, ceil_div, tokens

if TYPE_CHECKING:
    from hierarch.model.block import Block

TileSize = int | Literal["auto"] | None
"""How many tokens go through a block together, about; "auto": as many as are of `BYTES`; None: all
of the map, and not by this way."""
BYTES = 40 * 7 * 7 * 96 * 4
"""Of a map that go through a block together, for each thread that works on them: 40 windows of 7x7
at Swin-T's first width in float32.

Measured: what a tile holds at once in the widest place, an MLP's hidden layer, then stays near the
cores, and a matrix multiplication has rows enough to run at its full speed.
"""
EACH = 1.25
"""Such tiles that a map has for each thread of ours, at least. With fewer, more is lost than won:
torch's own threads go on waiting for work for some milliseconds, in the way of ours.
"""
KEPT = 1 << 14
"""Tokens of the maps whose order is kept, at most: for a few images it takes a hundredth of their
time to work out, and as many as are kept need 8 MiB."""

Tile = tuple[Tensor, list[tuple[Kind, int]]]
"""(windows, size): the tokens of windows, and how many there are of each kind."""


@runtime_checkable
class WindowMixer(Protocol):
    """What a mixer offers whose spec says `independent_windows`."""

    def cut(self, grid: Pair) -> Cut:
        """How a grid is cut into windows."""

    def mix(self, windows: Tensor, cut: Cut, counts: Sequence[tuple[Kind, int]]) -> Tensor:
        """(n, N, C) -> (n, N, C): some of the cut's windows, each mixed within itself; `counts`
        says how many of which kind follow each other."""


def threads_of(x: Tensor) -> int:
    """Threads that a map, and what a stage makes of it, is shared among; 1 for torch's own way."""
    return threads_for(x.nbytes / (EACH * BYTES))


def streamed(blocks: Sequence[Block], x: Tensor, *, threads: int, over: bool = False) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): the output of blocks that follow each other, without a
    gradient, by so many threads. The first one writes a new map, or `over` its input, the others
    over that."""
    batch, height, width, dim = x.shape
    rows = x.reshape(-1, dim)
    out = rows if over else None
    cuts = [cast(WindowMixer, block.mixer).cut((height, width)) for block in blocks]
    different = list(dict.fromkeys(cuts))
    found = each(functools.partial(_order, batch), different, threads)
    orders = dict(zip(different, found, strict=True))
    for block, cut in zip(blocks, cuts, strict=True):
        rows = out = _through(block, rows, out, cut, orders[cut], threads)
    return rows.view(x.shape)


def _order(batch: int, cut: Cut) -> Order:
    kept = batch * cut.count * tokens(cut.window) <= KEPT
    return _kept_order(batch, cut) if kept else cut.order(batch)


@functools.lru_cache(ENTRIES)
def _kept_order(batch: int, cut: Cut) -> Order:
    return cut.order(batch)


def _through(
    block: Block, rows: Tensor, out: Tensor | None, cut: Cut, order: Order, threads: int
) -> Tensor:
    """(B*H*W, C) -> (B*H*W, C): a block's output, written to `out`, which may be `rows`."""
    mixer = cast(WindowMixer, block.mixer)
    lock = threading.Lock()

    def run(tile: Tile) -> None:
        nonlocal out
        places, counts = tile
        held = places.flatten()
        real = held >= 0 if cut.pads else None
        tokens = rows.index_select(0, held if real is None else held.clamp(min=0))
        read = block.before(tokens)
        if real is not None:
            read = read.masked_fill(~real[:, None], 0)
        mixed = mixer.mix(read.view(*places.shape, -1), cut, counts).flatten(0, 1)
        if real is not None:
            held, tokens, mixed = held[real], tokens[real], mixed[real]
        done = block.after(tokens, mixed)
        with lock:  # what type the output has, the first tile says
            if out is None or out.dtype != done.dtype:
                out = torch.empty_like(rows, dtype=done.dtype)
        write(out, held, done)

    of_bytes = BYTES / (rows.shape[1] * rows.element_size())
    tile = of_bytes if block.tile == "auto" else block.tile or len(rows)
    count = order[0].numel() / tile
    threads = threads if 2 * count >= threads else 1
    if block.tile == "auto":
        count /= _sharing(threads)
    each(run, _tiles(order, _shared(count, threads)), threads)
    return rows if out is None else out


def _sharing(threads: int) -> int:
    """Of torch's own threads, how many work on one tile, each with a part of it in its cache."""
    return torch.get_num_threads() if threads == 1 else 1


def _shared(count: float, threads: int) -> int:
    """How many tiles to make of so many tiles' worth: as many for each thread."""
    return threads * max(1, round(count / threads))


def _tiles(order: Order, count: int) -> list[Tile]:
    """Windows that go together: so many tiles, all of one size or one window less."""
    index, counts = order
    tiles = index.tensor_split(count)
    starts = list(accumulate(map(len, tiles), initial=0))
    return [
        (places, within(counts, start, stop))
        for places, (start, stop) in zip(tiles, pairwise(starts), strict=True)
        if len(places)
    ]


def in_strips(module: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, height: int) -> Tensor:
    """(B, H, W, C) -> (B, ceil(H / height), w, D): what a module's `run` makes of rows, of each
    `height` of them one. Where nobody looks inside, of some at a time, so that nothing but the
    result is as large as the map."""
    if not unwatched(x) or is_hooked_inside(module):
        return run(x)
    rows = ceil_div(x.shape[1], height)
    threads = threads_of(x)
    strips = min(rows, _shared(x.nbytes / BYTES / _sharing(threads), threads))
    stops = [rows * i // strips for i in range(strips + 1)]
    out: Tensor | None = None
    lock = threading.Lock()

    def one(strip: tuple[int, int]) -> None:
        nonlocal out
        start, stop = strip
        done = run(x[:, start * height : stop * height])
        with lock:
            if out is None:
                out = done.new_empty(done.shape[0], rows, *done.shape[2:])
        out[:, start:stop] = done

    if strips == 1:
        return run(x)
    each(one, pairwise(stops), threads)
    assert out is not None
    return out
