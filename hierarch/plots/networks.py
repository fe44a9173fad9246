"""The network that a plot looks into, and the picture that it is shown."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from hierarch.building import build, unpack_weights
from hierarch.errors import DataError, PlotError
from hierarch.nn.backbone import Backbone
from hierarch.nn.stage import Block, Stage
from hierarch.plots.scene import scene
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides, checked_size
from hierarch.spec.load import load, of_images
from hierarch.train.reading import read_image, with_channels
from hierarch.train.recipe import Recipe
from hierarch.weights.files import Source as Weights
from hierarch.weights.load import load_weights

Network = Backbone | BackboneSpec | str | os.PathLike[str] | Mapping[str, Any]
"""A network as it is, or what `hierarch.load` reads."""
Size = int | Sides | None
"""Pixels, or (height, width); None for the spec's own."""
NORM = Recipe(epochs=1)
"""How pictures are normed: as for ImageNet."""


def spec_of(network: Network) -> BackboneSpec:
    """The spec of a network of images, or what `hierarch.load` reads. Raises `SpecError`, also for
    a network of videos or signals, whose maps are not drawn."""
    return of_images(described(network))


def described(network: Network) -> BackboneSpec:
    """The spec of a network, or what `hierarch.load` reads, on any number of axes."""
    return network.spec if isinstance(network, Backbone) else load(network)


@dataclass(frozen=True)
class Subject:
    """A network that is looked into, and what its weights are.

    >>> looked = subject("swin_tiny")
    >>> looked.name, next(looked.model.parameters()).dtype
    ('swin_tiny', torch.float64)
    """

    model: Backbone
    """A copy in float64 on the CPU, in eval mode, whose weights need no gradient: what rounding
    adds is out of the picture, and nothing is left behind in the network that was given."""
    weights: str
    """What a caption says of them."""

    @property
    def spec(self) -> BackboneSpec:
        return self.model.spec

    @property
    def name(self) -> str:
        return self.spec.name


def subject(source: Network, *, weights: Weights | None = None, seed: int = 0) -> Subject:
    """The network to look into. One that is only specified has `weights`, or else random ones.

    Raises `SpecError` for a spec that is none, `WeightsError` for weights that do not fit, and
    `PlotError` for weights beside a network that has its own.

    >>> subject("swin_tiny").weights
    'random weights: nothing is learned yet'
    """
    spec = spec_of(source)
    if isinstance(source, Backbone):
        if weights is not None:
            raise PlotError(
                "weights are for a spec; this network has its own: hierarch.load_weights"
            )
        return Subject(_still(source), "the network's own weights")
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        model = build(spec)
    if weights is None:
        return Subject(_still(model), "random weights: nothing is learned yet")
    load_weights(model, weights, new_head=True)  # no plot looks at the head
    if isinstance(weights, Mapping):
        return Subject(_still(model), "given weights")
    return Subject(_still(model), f"weights of {Path(weights).name}")


def _still(model: Backbone) -> Backbone:
    still = cast(Any, unpack_weights)(copy.deepcopy(model))
    return cast(Backbone, still.cpu().double().eval().requires_grad_(False))


def stage_numbers(spec: BackboneSpec, stages: Sequence[int] | None) -> list[int]:
    """The stages to look at, in the network's order; all that it has without `stages`: those after
    the last of `out_indices` are not built. Raises `PlotError` for one that is not there."""
    last = len(spec.plan()) - 1
    wanted = range(last + 1) if stages is None else sorted(set(stages))
    if not wanted or not all(0 <= i <= last for i in wanted):
        raise PlotError(f"stages {list(wanted)}: {spec.name} has stages 0 to {last}")
    return list(wanted)


def mixers_of(model: Backbone, stages: Sequence[int]) -> dict[tuple[int, int], nn.Module]:
    """The mixer of each block of some stages, by stage and block."""
    blocks = {i: cast(Stage, model.stages[i]).blocks for i in stages}
    return {
        (i, j): cast(Block, block).mixer for i, of in blocks.items() for j, block in enumerate(of)
    }


@dataclass(frozen=True)
class Picture:
    """An image as it is shown, and as the network takes it.

    >>> picture(None, load("swin_tiny"), size=(64, 96)).size
    (64, 96)
    """

    pixels: np.ndarray[Any, Any]
    """(H, W) or (H, W, 3): bytes."""
    images: Tensor
    """(1, C, H, W): normed, in float64."""

    @property
    def size(self) -> Sides:
        return self.pixels.shape[0], self.pixels.shape[1]


def picture(source: Any, spec: BackboneSpec, *, size: Size = None) -> Picture:
    """An image at the size that a network is shown it: scaled, and cut to the middle where its
    sides have another ratio.

    `source` is a file, an image of PIL, an array (H, W) or (H, W, 3) of bytes, or None for a drawn
    picture. Without `size`, that is the spec's. Raises `DataError` for what is no image, or one
    that the network does not take.

    >>> import hierarch
    >>> shown = picture(None, hierarch.load("swin_tiny"), size=(64, 96))
    >>> shown.pixels.shape, shown.images.shape
    ((64, 96, 3), torch.Size([1, 3, 64, 96]))
    """
    from PIL import ImageOps

    in_chans = spec.stem.in_chans
    height, width = spec.size if size is None else checked_size(size)
    if isinstance(source, str | os.PathLike):
        image = read_image(Path(source), in_chans)
    else:
        given = scene((height, width)) if source is None else _checked(source)
        image = with_channels(given, in_chans, where="the image")
    pixels = np.asarray(ImageOps.fit(image, (width, height)))
    channels = torch.from_numpy(pixels.reshape(height, width, in_chans).copy()).permute(2, 0, 1)
    mean, std = (torch.tensor(value).view(-1, 1, 1).double() for value in NORM.norm(in_chans))
    return Picture(pixels, ((channels / 255 - mean) / std)[None])


def _checked(source: Any) -> Any:
    from PIL import Image

    if isinstance(source, Image.Image):
        return source
    image = np.asarray(source)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size or image.dtype != np.uint8:
        raise DataError(
            "an image should be a file, an image of PIL, or an array (height, width) or (height, "
            f"width, 3) of bytes, got {image.dtype} of shape {image.shape}"
        )
    return image
