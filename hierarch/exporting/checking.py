"""Whether a file computes what torch does, at several sizes and on given images, and how fast."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarch.exporting.target import Run
from hierarch.report.export import Agreement, ImageCheck, SizeCheck
from hierarch.spec.grid import Sides
from hierarch.timing import interleaved

TINY = 1e-30
Case = tuple[int, ...]
"""Batch and sides: (batch, height, width)."""


def cases(size: Sides, batch: int, dynamic: Collection[str]) -> list[Case]:
    """What a file is checked at: its size and batch, and where these are dynamic, others, odd ones
    among them.

    >>> cases((224, 224), 8, [])
    [(8, 224, 224)]
    >>> cases((224, 224), 1, ["batch"])
    [(1, 224, 224), (2, 224, 224), (5, 224, 224)]
    """
    if not {*dynamic} - {"batch"}:
        return [(n, *size) for n in ((1, 2, 5) if "batch" in dynamic else (batch,))]
    *first, last = ([n + 1, n * 3 // 4 | 1, n * 5 // 4 | 1, max(1, n * 7 // 8)] for n in size)
    sizes = [size, *zip(*first, last[1:] + last[:1], strict=True)]
    batches = (1, 2, 1, 3, 1) if "batch" in dynamic else (batch,) * len(sizes)
    return [(n, *sides) for n, sides in zip(batches, sizes, strict=True)]


def check_sizes(
    network: Run, run: Run, inputs: Sequence[Tensor], *, rounds: int, classes: bool
) -> tuple[SizeCheck, ...]:
    """Both on images (B, C, H, W) of several sizes, compared, and timed in turn."""
    agreements = [agree([network(x)], [run(x)], classes=classes) for x in inputs]
    calls = [partial(call, x) for x in inputs for call in (network, run)]
    times = interleaved(calls, rounds=rounds, warmup=1)
    return tuple(
        SizeCheck(
            size=tuple(x.shape[2:]),
            batch=len(x),
            agreement=agreement,
            torch_seconds=torchs,
            seconds=ours,
        )
        for x, agreement, torchs, ours in zip(
            inputs, agreements, times[::2], times[1::2], strict=True
        )
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
    difference, relative, same = [], [], 0
    for ours, theirs in zip(zip(*found, strict=True), zip(*wanted, strict=True), strict=True):
        pairs = zip(ours, theirs, strict=True)
        difference.append(max_of(float((a.double() - b.double()).abs().max()) for a, b in pairs))
        largest = max_of(float(output.double().abs().max()) for output in theirs)
        relative.append(difference[-1] / max(largest, TINY))
    if classes:
        logits = zip(found, wanted, strict=True)
        same = sum(int((a[0].argmax(1) == b[0].argmax(1)).sum()) for a, b in logits)
    return Agreement(
        images=sum(len(batch[0]) for batch in wanted),
        difference=max_of(difference),
        relative=max_of(relative),
        same_class=same if classes else None,
    )


def max_of(values: Iterable[float]) -> float:
    """The largest number; not a number, if one is none."""
    every = list(values)
    return max(every, key=lambda value: (math.isnan(value), value))


def _right(outputs: Sequence[Sequence[Tensor]], labels: Tensor) -> int:
    predicted = torch.cat([batch[0].argmax(1) for batch in outputs])
    return int((predicted == labels[: len(predicted)]).sum())


def images_for(case: Case, in_chans: int, given: Tensor | None) -> Tensor:
    """(B, C, H, W): the given images resized, repeated to as many as are wanted; or noise."""
    batch, *size = case
    if given is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, in_chans, *size, generator=generator)
    chosen = given[torch.arange(batch) % len(given)]
    if [*chosen.shape[2:]] == size:
        return chosen
    if len(size) != 2:
        return F.interpolate(chosen, size, mode="nearest")
    return F.interpolate(chosen, size, mode="bilinear", antialias=True)
