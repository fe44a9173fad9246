"""Whether a file computes what torch does, at several sizes and on given images, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarch.exporting.target import Run
from hierarch.report.export import TINY, Agreement, ImageCheck, SizeCheck
from hierarch.spec.grid import Pair
from hierarch.timing import interleaved

Case = tuple[int, int, int]
"""Batch, height, width."""


def cases(size: Pair, batch: int, dynamic: Collection[str]) -> list[Case]:
    """What a file is checked at: its size and batch, and where these are dynamic, others, odd ones
    among them.

    >>> cases((224, 224), 8, [])
    [(8, 224, 224)]
    >>> cases((224, 224), 1, ["batch"])
    [(1, 224, 224), (2, 224, 224), (5, 224, 224)]
    """
    h, w = size
    if "height" not in dynamic:
        return [(n, h, w) for n in ((1, 2, 5) if "batch" in dynamic else (batch,))]
    sizes = [(h, w), (h + 1, w * 3 // 4 | 1), (h * 3 // 4 | 1, w), (h * 5 // 4 | 1, w | 1)]
    sizes.append((h * 7 // 8, w * 9 // 8))
    batches = (1, 2, 1, 3, 1) if "batch" in dynamic else (batch,) * len(sizes)
    return [(n, *sides) for n, sides in zip(batches, sizes, strict=True)]


def check_size(network: Run, run: Run, images: Tensor, *, rounds: int, classes: bool) -> SizeCheck:
    """Both on these images, (B, C, H, W), compared and timed in turn."""
    agreement = agree([network(images)], [run(images)], classes=classes)
    calls: list[Callable[[], Any]] = [lambda: network(images), lambda: run(images)]
    torchs, ours = interleaved(calls, rounds=rounds, warmup=1)
    return SizeCheck(
        size=(images.shape[2], images.shape[3]),
        batch=len(images),
        agreement=agreement,
        torch_seconds=torchs,
        seconds=ours,
    )


def check_images(
    network: Run, run: Run, batches: Sequence[Tensor], labels: Tensor | None, *, classes: bool
) -> ImageCheck:
    """Both on batches of images; with labels, (N), how many of the images each is right about."""
    wanted = [network(batch) for batch in batches]
    found = [run(batch) for batch in batches]
    right = None
    if labels is not None and classes:
        right = _right(wanted, labels), _right(found, labels)
    return ImageCheck(agreement=agree(wanted, found, classes=classes), right=right)


def agree(
    wanted: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]], *, classes: bool
) -> Agreement:
    """Two networks' outputs, batch by batch. Of a classifier, the first one is the logits."""
    relative, largest, difference, same = [], [], [], 0
    for ours, theirs in zip(zip(*found, strict=True), zip(*wanted, strict=True), strict=True):
        one = torch.cat([x.double().flatten() for x in ours])
        other = torch.cat([x.double().flatten() for x in theirs])
        apart = one - other
        difference.append(float(apart.abs().max()))
        largest.append(float(other.abs().max()))
        relative.append(float(apart.norm() / other.norm().clamp(min=TINY)))
    if classes:
        pairs = zip(found, wanted, strict=True)
        same = sum(int((a[0].argmax(1) == b[0].argmax(1)).sum()) for a, b in pairs)
    return Agreement(
        images=sum(len(batch[0]) for batch in wanted),
        difference=_worst(difference),
        largest=max(largest),
        relative=_worst(relative),
        same_class=same if classes else None,
    )


def _worst(values: list[float]) -> float:
    """The largest one; not a number, if one is none."""
    return next((value for value in values if value != value), max(values))


def _right(outputs: Sequence[Sequence[Tensor]], labels: Tensor) -> int:
    predicted = torch.cat([batch[0].argmax(1) for batch in outputs])
    return int((predicted == labels[: len(predicted)]).sum())


def images_for(case: Case, in_chans: int, given: Tensor | None) -> Tensor:
    """(B, C, H, W): the given images resized, repeated to as many as are wanted; or noise."""
    batch, height, width = case
    if given is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, in_chans, height, width, generator=generator)
    chosen = given[torch.arange(batch) % len(given)]
    if chosen.shape[2:] == (height, width):
        return chosen
    return F.interpolate(chosen, (height, width), mode="bilinear", antialias=True)
