"""The sizes of a stream: drawn at random, or those of a folder of images; and their turns."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

from hierarch.bench.settings import whole
from hierarch.complexity.peers import first_line
from hierarch.errors import BenchError
from hierarch.needs import require
from hierarch.spec.grid import MAX_SIDE, Sides, checked_size

SEED = 0


def random_sizes(
    count: int, low: int, high: int, *, axes: int = 2, seed: int = SEED
) -> list[Sides]:
    """So many sizes, each side drawn uniformly from `low` to `high` pixels.

    Raises `BenchError` for a value that is out of range.

    >>> random_sizes(3, 40, 130)
    [(89, 93), (45, 73), (105, 102)]
    """
    whole("number of random sizes", count)
    whole("least side", low, most=MAX_SIDE)
    whole("greatest side", high, least=low, most=MAX_SIDE)
    draws = random.Random(seed)
    return [tuple(draws.randint(low, high) for _ in range(axes)) for _ in range(count)]


def folder_sizes(folder: str | os.PathLike[str]) -> list[Sides]:
    """The (height, width) of each image in a folder and in those below it, in the order of their
    paths. Of an image, only the header is read.

    Files count as images by their suffix. Raises `BenchError` for a folder without images, and for
    an image that cannot be read.

    >>> from PIL import Image
    >>> Path("photos").mkdir()
    >>> Image.new("RGB", (640, 480)).save("photos/one.png")
    >>> folder_sizes("photos")
    [(480, 640)]
    """
    require("PIL", extra="torchvision")
    from PIL import Image

    root = Path(folder)
    if not root.is_dir():
        raise BenchError(f"no such folder: {str(root)[:200]!r}")
    known = Image.registered_extensions()
    files = sorted(
        file for file in root.rglob("*") if file.suffix.lower() in known and file.is_file()
    )
    if not files:
        raise BenchError(f"{root}: holds no images, such as .jpg or .png")
    return [_size(file) for file in files]


def groups(images: int, size: int) -> list[tuple[int, int]]:
    """The first index of each group, and the one after its last.

    >>> groups(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(first, min(first + size, images)) for first in range(0, images, size)]


def _size(file: Path) -> Sides:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return checked_size(image.size[::-1])
    except Exception as error:  # readers of PIL raise many kinds for a damaged file
        raise BenchError(f"{file}: cannot be read as an image: {first_line(error)}") from error
