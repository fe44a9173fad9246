"""Blocks run a few windows at a time, while those are in cache: inference on a CPU.

Each token is read once and written once. Between the two, its window goes through norm, mixer,
residual, norm, MLP and residual. The result is the definition's up to rounding.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.engine.conditions import (
    changed,
    inside,
    not_cpu_inference,
    not_inherited,
    not_known,
    not_per_token,
)
from hierarch.engine.gathering import write
from hierarch.engine.onednn import few
from hierarch.engine.orders import PADDING, Order, alike, order
from hierarch.engine.seam import Refusal, way
from hierarch.engine.threads import each, threads_for
from hierarch.nn.cut import Cut, Runs
from hierarch.nn.stage import Block, Stage
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec.grid import Sides, ceil_div, tokens

TileSize = int | Literal["auto"] | None
"""Tokens of a tile, about: what goes through a block together. "auto": `TILE_BYTES` of them. None:
blocks are not streamed."""
TILE_BYTES = 40 * 7 * 7 * 96 * 4
"""Bytes of a tile for each thread that works on it: 40 windows of 7x7 at Swin-T's first width in
float32.

Measured: the widest tensor of a tile, an MLP's hidden layer, then stays near the cores, and a
matrix multiplication has enough rows to run at its full speed.
"""
MIN_TILES_PER_THREAD = 1.25
"""Below this many tiles per thread, the pool's threads lose more than they gain: torch's own
threads spin for some milliseconds after each operator, and slow them down."""
NOTICEABLE = 1.02
"""A thread that works longer than another by less than this is not worth a tile of another size:
larger ones leave the cache, smaller ones are multiplied more slowly."""


# when


def refuses_stage(stage: Stage, x: Tensor, grid: Sides | None = None) -> Refusal | None:
    if refusal := not_cpu_inference(x) or _not_alone(grid):
        return refusal
    return next(
        filter(None, (changed(block) or _not_streamable(block) for block in stage.layers)), None
    )


def refuses_block(block: nn.Module, x: Tensor, grid: Sides | None = None) -> Refusal | None:
    return not_cpu_inference(x) or _not_alone(grid) or _not_streamable(block)


def _not_alone(grid: Sides | None) -> Refusal | None:
    """Refuses a row of tokens that are told their grid: no window is cut from it."""
    return Refusal("tokens outside of the grid") if grid else None


def _not_streamable(block: nn.Module) -> Refusal | None:
    """Refuses all but blocks that mix in windows, and else work token by token."""
    if not isinstance(block, Block):
        return Refusal(f"{type(block).__name__} is not a Block", block)
    if refusal := not_inherited(block, Block):
        return refusal
    if block.training:
        return Refusal("training mode", block)
    if tile_size(block) is None:
        return Refusal("a tile size of None", block)
    mixer = block.mixer
    if not isinstance(mixer, WindowMixer):
        return Refusal(f"{type(mixer).__name__} does not mix in windows", mixer)
    if refusal := not_inherited(mixer, WindowMixer):
        return refusal
    others = (child for child in block.children() if child is not mixer)
    return changed(mixer) or inside(not_per_token, *mixer.children(), *others)


def tile_size(block: Block) -> TileSize:
    """The block's tile size, as `set_tile_size` set it."""
    size: TileSize = getattr(block, "tile_size", "auto")
    return size


def set_tile_size(network: nn.Module, size: TileSize) -> None:
    """Sets the tile size of all blocks. Raises `ValueError` for a number below 1."""
    if size not in ("auto", None) and (isinstance(size, str) or size < 1):
        raise ValueError(f"tokens={size} should be 1 or more, 'auto' or None")
    for block in network.modules():
        if isinstance(block, Block):
            vars(block)["tile_size"] = size


# how


@way("streamed", refuses_stage)
def run_stage(stage: Stage, x: Tensor) -> Tensor:
    tokens = stage.downsample(x)
    inplace = overwritable(tokens) or not may_alias(tokens, x, stage.downsample)
    blocks = cast(Sequence[Block], stage.layers)
    return streamed(blocks, tokens, threads=threads_of(x), inplace=inplace)


@way("streamed", refuses_block)
def run_block(block: Block, x: Tensor) -> Tensor:
    return streamed([block], x, threads=threads_of(x))


def threads_of(x: Tensor) -> int:
    """The number of threads that share the tiles of a map; 1 for torch's own way."""
    return threads_for(x.nbytes / (MIN_TILES_PER_THREAD * TILE_BYTES))


def may_alias(made: Tensor, given: Tensor, *makers: nn.Module) -> bool:
    """Whether the makers, a hook on them, or whoever holds `given`, may hold the memory of
    `made`."""
    memory, other = (one.untyped_storage().data_ptr() for one in (made, given))
    return memory == other or inside(not_known, *makers) is not None


_owned = threading.local()


def overwritable(x: Tensor) -> bool:
    """Whether x is the map that `overwriting` allows to overwrite, in this thread."""
    return getattr(_owned, "map", None) is x


def overwriting(run: Callable[..., Tensor], x: Tensor, *told: Sides) -> Tensor:
    """run(x, *told), which may write its result to x: the caller needs x no more."""
    _owned.map = x
    try:
        return run(x, *told)
    finally:
        _owned.map = None


def streamed(blocks: Sequence[Block], x: Tensor, *, threads: int, inplace: bool = False) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): the output of blocks that follow each other, with autograd off.

    The first block writes to a new map, or to x if `inplace`, and the others in place.
    """
    batch, *grid, dim = x.shape
    maps = [(batch, tuple(grid))]
    return through(blocks, x.reshape(-1, dim), maps, threads=threads, inplace=inplace).view(x.shape)


def through(
    blocks: Sequence[Block],
    rows: Tensor,
    maps: Sequence[tuple[int, Sides]],
    *,
    threads: int,
    inplace: bool,
) -> Tensor:
    """(tokens, C) -> (tokens, C): the same for the tokens of several maps, one after another, of
    each of which `maps` has the batch and the grid."""
    out = rows if inplace else None
    cuts = [
        [(cast(WindowMixer, block.mixer).cut(grid), batch) for batch, grid in maps]
        for block in blocks
    ]
    different = list(dict.fromkeys(itertools.chain(*cuts)))
    made = each(lambda one: order(*one), different, threads)
    orders = dict(zip(different, made, strict=True))
    starts = [*accumulate((batch * tokens(grid) for batch, grid in maps), initial=0)][:-1]
    for block, own in zip(blocks, cuts, strict=True):
        for cut, parts, pads in alike(own, starts, orders):
            out = _through(block, rows, out, cut, parts, pads, threads)
        rows = cast(Tensor, out)
    return rows


def _through(
    block: Block,
    rows: Tensor,
    out: Tensor | None,
    cut: Cut,
    order: Order,
    pads: bool,
    threads: int,
) -> Tensor:
    """(tokens, C) -> (tokens, C): a block's output, written to `out`, which may be `rows`."""
    mixer = cast(WindowMixer, block.mixer)
    size = tile_size(block)
    of_bytes = TILE_BYTES / (rows.shape[1] * rows.element_size())
    count = order[0].numel() / (of_bytes if size == "auto" else size or len(rows))
    threads = threads if 2 * count >= threads else 1
    if size == "auto":
        count /= torch_threads_per_tile(threads)
    tiles, filled = _tiles(order, rounded(count, threads), threads)
    pads = pads or filled
    lock = threading.Lock()

    def run(tile: Order) -> None:
        nonlocal out
        windows, runs = tile
        places = windows.flatten()
        real = places >= 0 if pads else None
        tokens = rows.index_select(0, places if real is None else places.clamp(min=0))
        read = block.before(tokens)
        if real is not None:
            read = read.masked_fill(~real[:, None], 0)
        mixed = mixer.mix(read.view(*windows.shape, -1), cut, runs).flatten(0, 1)
        if real is not None:
            kept = real.nonzero().flatten()
            places = places.index_select(0, kept)
            # some row again, up to a number of rows of which there are few
            kept = F.pad(kept, (0, min(few(len(kept)), len(tokens)) - len(kept)))
            tokens, mixed = tokens.index_select(0, kept), mixed.index_select(0, kept)
        done = block.after(tokens, mixed)[: len(places)]
        with lock:  # the first tile's output says what type the map has
            if out is None or out.dtype != done.dtype:
                out = torch.empty_like(rows, dtype=done.dtype)
        write(out, places, done)

    each(run, tiles, threads)
    return rows if out is None else out


def torch_threads_per_tile(threads: int) -> int:
    """How many of torch's own threads work on one tile, each with a part of it in its cache."""
    return torch.get_num_threads() if threads == 1 else 1


def rounded(count: float, threads: int) -> int:
    """A number of tiles, about `count`, of which each thread gets as many."""
    return threads * max(1, round(count / threads))


def _tiles(order: Order, count: int, threads: int) -> tuple[list[Order], bool]:
    """Windows that go together, in about so many tiles, and whether the last tile was filled by
    windows of padding: one tile has all windows, and of several each has a `few`."""
    index, runs = order
    size = max(1, len(index) if count == 1 else shared_size(len(index), count, threads))
    rest = len(index) % size
    missing = few(rest) - rest
    if missing:
        index = F.pad(index, (0, 0, 0, missing), value=PADDING)
        *others, (kind, number) = runs
        runs = [*others, (kind, number + missing)]
    starts = range(0, len(index), size)
    tiles = [(index[start : start + size], within(runs, start, start + size)) for start in starts]
    return tiles, missing > 0


def shared_size(windows: int, count: int, threads: int) -> int:
    """Windows of a tile, a `few` of them: what `count` tiles would have, or near it where threads
    are done together only then, so that the one that works longest has noticeably fewer windows.

    >>> shared_size(36, 8, threads=2)  # 6 tiles, where 7 of 5 windows and one of 1 keep one waiting
    6
    >>> shared_size(100, 7, threads=1)  # nobody waits for anybody
    15
    """
    wanted = few(ceil_div(windows, count))
    sizes = dict.fromkeys(map(few, range(wanted - wanted // 8, wanted + wanted // 4 + 1)))

    def longest(size: int) -> int:
        rounds, others = divmod(windows // size, threads)
        return rounds * size + (size if others else few(windows % size))

    shortest = min(map(longest, sizes))
    quick = [size for size in sizes if longest(size) <= NOTICEABLE * shortest]
    return min(quick, key=lambda size: abs(size - wanted))


def within(runs: Runs, start: int, stop: int) -> Runs:
    """The kinds of the windows from `start` to `stop`."""
    part, first = [], 0
    for kind, count in runs:
        inside = min(stop, first + count) - max(start, first)
        if inside > 0:
            part.append((kind, inside))
        first += count
    return part
