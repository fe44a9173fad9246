"""Images of several sizes together: the windows of all of them go through the same tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from hierarch.engine.batches import keep_freed_memory
from hierarch.engine.conditions import changed, not_cpu_inference, not_of_type
from hierarch.engine.seam import Refusal, way
from hierarch.engine.streaming import refuses_stage, threads_of, through
from hierarch.nn.backbone import Backbone, Output, check_images
from hierarch.nn.stage import Block, Stage


def refuses_lists(network: Backbone, images: Sequence[Tensor]) -> Refusal | None:
    """Takes lists of images for a network all of whose blocks are streamed, and whose own steps
    from images to outputs nobody replaced or watches."""
    if network.training:
        return Refusal("training mode", network)
    cls = type(network)
    for name in ("forward", "forward_features", "maps"):
        if getattr(cls, name) is not getattr(Backbone, name):
            return Refusal(f"{cls.__name__} has its own {name}", network)
    if refusal := changed(network):
        return refusal
    if len(images) < 2:
        return Refusal("fewer than two images")
    for image in images:
        if refusal := not_cpu_inference(image):
            return refusal
        if image.dtype is not images[0].dtype:
            return Refusal("images of several types")
    for stage in network.stages:
        if refusal := not_of_type(stage, Stage) or refuses_stage(cast(Stage, stage), images[0]):
            return refusal
    return None


@way("images of several sizes together", refuses_lists)
def run_lists(network: Backbone, images: Sequence[Tensor]) -> list[Output]:
    keep_freed_memory()
    for image in images:
        check_images(image[None], network.spec.stem.in_chans, axes=network.axes)
    maps, kept = [network.embed(image[None]) for image in images], {}
    wanted = network.spec.outputs or (len(network.stages) - 1,)
    for i, stage in enumerate(network.stages[: max(wanted) + 1]):
        maps = _through_stage(cast(Stage, stage), maps)
        if i in wanted:
            kept[i] = [network.normed(i, one) for one in maps]
    if network.spec.head is not None:
        return [network.forward_head(one)[0] for one in kept[wanted[0]]]
    outputs = zip(*(kept[i] for i in wanted), images, strict=True)
    return [tuple(network.nchw(m, image[None])[0] for m in own) for *own, image in outputs]


def _through_stage(stage: Stage, maps: Sequence[Tensor]) -> list[Tensor]:
    """(1, H, W, C) of each image -> (1, h, w, D): by an image its downsampling, and all blocks for
    the tokens of all."""
    tokens = [stage.downsample(one) for one in maps]
    rows = torch.cat([one.flatten(0, -2) for one in tokens])
    grids = [(len(one), tuple(one.shape[1:-1])) for one in tokens]
    blocks = cast(Sequence[Block], stage.layers)
    done = through(blocks, rows, grids, threads=threads_of(rows), inplace=True)
    parts = done.split_with_sizes([one.shape[:-1].numel() for one in tokens])
    return [part.view(*one.shape[:-1], -1) for part, one in zip(parts, tokens, strict=True)]
