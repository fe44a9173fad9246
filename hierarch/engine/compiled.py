"""A compiled stage that takes some images at a time through its blocks.

Measured: intermediate maps of more images leave the caches, and a tensor of over 32 MiB is memory
that the system clears each time.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from hierarch.engine.conditions import changed, inside, not_compiled_for_cpu
from hierarch.engine.seam import Refusal, way
from hierarch.engine.torch_private import is_known
from hierarch.nn.stage import Stage, through
from hierarch.spec.grid import Sides

MIN_CHUNK_BYTES = 2 * 56 * 56 * 96 * 4
"""Bytes of a chunk of the map, at least: two images of 224x224 in Swin-T's first stage."""
MAX_CHUNKS = 4
"""Each chunk repeats the blocks' code in the compiled program."""


def refuses_chunks(stage: Stage, x: Tensor, grid: Sides | None = None) -> Refusal | None:
    if refusal := not_compiled_for_cpu(x):
        return refusal
    if torch.is_grad_enabled():
        return Refusal("autograd is on")
    if stage.training:
        return Refusal("training mode")
    return inside(changed, *stage.layers)


@way("compiled in chunks", refuses_chunks)
def run_chunks(stage: Stage, x: Tensor, grid: Sides | None = None) -> Tensor:
    x, layers = stage.downsample(x), stage.layers_on(grid)
    return torch.cat([through(layers, images) for images in x.tensor_split(chunks(x))])


def chunks(x: Tensor) -> int:
    """The number of chunks of a batch (B, H, W, C)."""

    def are_large_enough(count: int) -> bool:
        size = prod(x.shape) * x.element_size()
        return is_known(size >= count * MIN_CHUNK_BYTES) and is_known(x.shape[0] >= count)

    return next(filter(are_large_enough, range(MAX_CHUNKS, 1, -1)), 1)
