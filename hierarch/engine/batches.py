"""A batch shared among threads, and the fold over the stages with a map overwritten."""

from __future__ import annotations

import functools
from collections.abc import Collection
from functools import partial
from typing import cast

import torch
from torch import Tensor

from hierarch.engine.conditions import (
    inside,
    not_cpu_inference,
    not_eager_on_cpu,
    not_known,
    not_of_type,
)
from hierarch.engine.seam import Refusal, way
from hierarch.engine.streaming import may_alias, overwriting, refuses_stage
from hierarch.engine.threads import each, threads_for
from hierarch.nn.backbone import Backbone, check_images
from hierarch.nn.stage import Stage

forward = Backbone.forward
"""The definition."""
MIN_IMAGES_AT_ONCE = 4
"""Images that a thread takes at a time, if there are as many: with fewer, a late stage reads its
weights for too few tokens."""


def refuses_shared(network: Backbone, images: Tensor) -> Refusal | None:
    """Takes batches of a network all of whose blocks are streamed: no image depends on another."""
    if not isinstance(images, Tensor):
        return Refusal("a list of images", inapplicable=True)
    if network.training:
        return Refusal("training mode", network)
    if refusal := not_cpu_inference(images):
        return refusal
    if images.ndim != 2 + network.axes:
        return Refusal("images of another shape")
    if threads_for(len(images)) == 1:
        return Refusal("fewer images than threads, or one thread")
    for stage in network.stages:
        if type(stage) is not Stage:
            return Refusal(f"{type(stage).__name__} is not Stage", stage)
        if refusal := refuses_stage(stage, images):
            return refusal
    return inside(not_known, network)


@way("images shared among threads", refuses_shared)
def run_shared(network: Backbone, images: Tensor) -> Tensor | tuple[Tensor, ...]:
    check_images(images, network.spec.stem.in_chans, axes=network.axes)
    threads = threads_for(len(images))
    turns = max(1, len(images) // (threads * MIN_IMAGES_AT_ONCE))
    outputs = each(partial(forward, network), images.tensor_split(threads * turns), threads)
    if isinstance(outputs[0], tuple):
        return tuple(map(torch.cat, zip(*outputs, strict=True)))
    return torch.cat(cast(list[Tensor], outputs))


@functools.cache
def keep_freed_memory() -> None:
    """Lets freed buffers stay in the heap for the next tile or step, in the whole process.

    glibc returns freed memory to the system above twice the size of the largest block that it saw
    freed. Freeing one block of 31 MiB, which is never touched, raises that threshold.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def refuses_overwriting(
    network: Backbone, images: Tensor, wanted: Collection[int]
) -> Refusal | None:
    return not_eager_on_cpu(images)


@way("overwriting", refuses_overwriting)
def run_overwriting(
    network: Backbone, images: Tensor, wanted: Collection[int]
) -> dict[int, Tensor]:
    """`Backbone.maps`, in which the first stage may overwrite the tokens that enter it."""
    keep_freed_memory()
    check_images(images, network.spec.stem.in_chans, axes=network.axes)
    x, told, maps = network.embed(images), network.told(images), {}
    makers = (
        network.stem,
        network.position_embedding,
        network.extra_tokens,
        network.drop,
    )
    for i, stage in enumerate(network.stages[: max(wanted) + 1]):
        if i == 0 and not not_of_type(stage, Stage) and not may_alias(x, images, *makers):
            x = overwriting(stage, x, *told)
        else:
            x = stage(x, *told)
        if i in wanted:
            maps[i] = x
    return maps
