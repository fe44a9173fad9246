"""Images made ready for the network, at random or not (torchvision.transforms.v2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from hierarch.errors import DataError
from hierarch.spec.grid import Sides
from hierarch.train.order import Item, seed_of
from hierarch.train.reading import UNREADABLE, with_channels
from hierarch.train.recipe import Recipe
from hierarch.train.sources import Source

Transform = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Broken:
    """An image that cannot be read."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: cannot be read: {self.reason}"


@dataclass
class Batch:
    """(B, C, H, W) images, (B,) labels, and the images in whose place others stand."""

    images: Tensor
    labels: Tensor
    broken: list[Broken]


class Images(Dataset[tuple[Tensor, int] | Broken]):
    """The images of a source, made ready.

    What is random in one follows from seed, epoch and index, whichever process prepares it.
    """

    def __init__(
        self, source: Source, transform: Transform, *, in_chans: int, seed: int = 0
    ) -> None:
        self.source, self.transform = source, transform
        self.in_chans, self.seed = in_chans, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Item) -> tuple[Tensor, int] | Broken:
        epoch, index = item
        try:
            image, label = self.source.read(index)
            image = with_channels(image, self.in_chans, where=self.source.where(index))
        except DataError:
            raise
        except UNREADABLE as error:
            return Broken(self.source.where(index), str(error).strip() or type(error).__name__)
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed_of(self.seed, "image", epoch, index))
            return self.transform(image), label


class Substituting(Images):
    """`Images`, where another one of the same epoch takes the place of one that is broken."""

    TRIES = 100

    def __getitem__(self, item: Item) -> Any:
        epoch, index = item
        first = None
        for _ in range(self.TRIES):
            found = super().__getitem__((epoch, index))
            if not isinstance(found, Broken):
                return (*found, first) if first else found
            first = first or found
            index = (index + 1) % len(self)
        raise DataError(f"{self.TRIES} images in a row cannot be read, the first is {first}")


def collate(samples: Sequence[Any]) -> Batch | Broken:
    """A batch; or the first image of it that is broken and has no other in its place."""
    for sample in samples:
        if isinstance(sample, Broken):
            return sample
    return Batch(
        torch.stack([sample[0] for sample in samples]),
        torch.tensor([sample[1] for sample in samples]),
        [sample[2] for sample in samples if len(sample) > 2],
    )


def collate_readable(samples: Sequence[Any]) -> Batch:
    """A batch of the images that can be read, which may be none, and those that cannot."""
    good = [sample for sample in samples if not isinstance(sample, Broken)]
    broken = [sample for sample in samples if isinstance(sample, Broken)]
    images = torch.stack([sample[0] for sample in good]) if good else torch.empty(0)
    return Batch(images, torch.tensor([sample[1] for sample in good], dtype=torch.long), broken)


def evaluation(recipe: Recipe, size: Sides, in_chans: int) -> Transform:
    """Resize the shorter side, crop the center, norm."""
    scale = recipe.evaluate.crop_ratio
    if size[0] == size[1]:
        resized = _shorter_side(round(size[0] / scale), recipe)
    else:
        resized = _resized((round(size[0] / scale), round(size[1] / scale)), recipe)
    return _in_turn(resized, _center(size), _normed(recipe, in_chans))


def training(recipe: Recipe, size: Sides, in_chans: int) -> Transform:
    """The recipe's `augment`, in the order in which it stands there."""
    augment = recipe.augment
    steps: list[Step] = []
    if augment.crop == "random_resized":
        scale, interpolation = augment.crop_scale, _interpolation(recipe)
        steps.append(v2.RandomResizedCrop(size, scale=scale, interpolation=interpolation))
    elif augment.crop == "padded":
        steps += [_resized(size, recipe), _padded_crop(augment.crop_padding)]
    else:
        steps += [_shorter_side(min(size), recipe), _center(size)]
    if augment.flip:
        steps.append(_flip(augment.flip))
    if augment.randaugment_ops:
        steps.append(
            v2.RandAugment(
                augment.randaugment_ops,
                augment.randaugment_magnitude,
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if augment.color_jitter:
        strength = augment.color_jitter
        steps.append(v2.ColorJitter(strength, strength, strength if in_chans == 3 else 0))
    steps.append(_normed(recipe, in_chans))
    if augment.erasing:
        steps.append(v2.RandomErasing(augment.erasing, value="random"))
    return _in_turn(*steps)


Step = Callable[[Any], Any]
"""From an image of PIL, or a tensor (C, H, W), to the next. What is simple is written here, since
torchvision's classes take longer for a small image than all of it takes."""


def _in_turn(*steps: Step) -> Transform:
    def transform(image: Any) -> Tensor:
        for step in steps:
            image = step(image)
        made: Tensor = image
        return made

    return transform


def _sides(image: Any) -> Sides:
    if isinstance(image, Tensor):
        return image.shape[-2], image.shape[-1]
    return image.height, image.width


def _resized(size: Sides, recipe: Recipe) -> Step:
    resize = v2.Resize(list(size), interpolation=_interpolation(recipe))
    return lambda image: image if _sides(image) == size else resize(image)


def _shorter_side(length: int, recipe: Recipe) -> Step:
    resize = v2.Resize(length, interpolation=_interpolation(recipe))
    return lambda image: image if min(_sides(image)) == length else resize(image)


def _center(size: Sides) -> Step:
    crop = v2.CenterCrop(size)
    return lambda image: image if _sides(image) == size else crop(image)


def _padded_crop(padding: int) -> Step:
    """A random part of the image's size, of the image with so many zeros around it."""

    def crop(image: Any) -> Any:
        top, left = (torch.randint(2 * padding + 1, (2,)) - padding).tolist()
        return v2.functional.crop(image, top, left, *_sides(image))

    return crop


def _flip(probability: float) -> Step:
    def flip(image: Any) -> Any:
        return v2.functional.horizontal_flip(image) if torch.rand(()) < probability else image

    return flip


def _normed(recipe: Recipe, in_chans: int) -> Callable[[Any], Tensor]:
    """Bytes -> (C, H, W) of float32: from 0 to 1, then less the mean, over the deviation."""
    means, stds = (np.array(values, np.float32)[:, None, None] for values in recipe.norm(in_chans))

    def norm(image: Any) -> Tensor:
        values = np.asarray(image, np.float32)
        if not isinstance(image, Tensor):  # (H, W, C), or (H, W) in gray
            values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray((values * np.float32(1 / 255) - means) / stds))

    return norm


def _interpolation(recipe: Recipe) -> v2.InterpolationMode:
    return v2.InterpolationMode(recipe.interpolation)
