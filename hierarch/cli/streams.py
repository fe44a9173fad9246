"""`--stream` of `hierarch bench`: sizes, random sizes, or a folder of images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hierarch.cli.common import sizes
from hierarch.errors import BenchError, SpecError
from hierarch.spec.grid import Sides

RANDOM = re.compile(r"(\d{1,9}):(\d{1,9})-(\d{1,9})")
"""40:256-640: how many sizes, and the least and the greatest side."""


def stream_sizes(text: str, *, axes: int) -> list[Sides]:
    """The sizes of a stream, in order: of the images of a folder, or as they are written, each
    part a size or a random draw. Raises `BenchError`, or `SpecError`.

    >>> stream_sizes("224,333x500,2:40-130", axes=2)
    [(224, 224), (333, 500), (89, 93), (45, 73)]
    """
    from hierarch.bench import folder_sizes

    if not Path(text).is_dir():
        return [size for part in text.split(",") for size in _of(part.strip(), axes)]
    if axes != 2:
        raise BenchError(
            f"--stream {text[:80]!r}: images are not what a network of {axes} axes takes"
        )
    return folder_sizes(text)


def _of(part: str, axes: int) -> Iterator[Sides]:
    from hierarch.bench import random_sizes

    if drawn := RANDOM.fullmatch(part):
        count, low, high = map(int, drawn.groups())
        return iter(random_sizes(count, low, high, axes=axes))
    try:
        return iter(sizes(part, "--stream", axes=axes))
    except SpecError as error:
        raise BenchError(
            f"{error}, random ones as 40:256-640 (forty, of sides from 256 to 640), or name a "
            "folder of images"
        ) from None
