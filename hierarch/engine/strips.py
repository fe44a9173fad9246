"""Patch embedding and merging, some rows at a time: only the result is as large as the map."""

from __future__ import annotations

import threading
from itertools import pairwise

from torch import Tensor, nn

from hierarch.engine.conditions import inside, not_a_convolution, not_cpu_inference, not_per_token
from hierarch.engine.linear import not_patches
from hierarch.engine.seam import Refusal, way
from hierarch.engine.streaming import TILE_BYTES, rounded, threads_of, torch_threads_per_tile
from hierarch.engine.threads import each
from hierarch.nn.by_rows import ByRows
from hierarch.spec.grid import ceil_div


def refuses_strips(layer: ByRows, x: Tensor) -> Refusal | None:
    if refusal := not_cpu_inference(x):
        return refusal
    return next(filter(None, map(_not_by_row, layer.children())), None)


def _not_by_row(child: nn.Module) -> Refusal | None:
    if not not_a_convolution(child):
        return not_patches(child)
    return inside(not_per_token, child)


@way("in strips", refuses_strips)
def run_strips(layer: ByRows, x: Tensor) -> Tensor:
    height = layer.rows
    rows, threads = ceil_div(x.shape[1], height), threads_of(x)
    strips = min(rows, rounded(x.nbytes / TILE_BYTES / torch_threads_per_tile(threads), threads))
    if strips == 1:
        return layer.transform(x)
    stops = [rows * i // strips for i in range(strips + 1)]
    out: Tensor | None = None
    lock = threading.Lock()

    def run(strip: tuple[int, int]) -> None:
        nonlocal out
        start, stop = strip
        done = layer.transform(x[:, start * height : stop * height])
        with lock:
            if out is None:
                out = done.new_empty(done.shape[0], rows, *done.shape[2:])
        out[:, start:stop] = done

    each(run, pairwise(stops), threads)
    assert out is not None
    return out
