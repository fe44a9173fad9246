"""A few images of a folder or a file, made ready for a network: to calibrate and to compare."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hierarch.errors import DataError
from hierarch.needs import require
from hierarch.spec.grid import Sides
from hierarch.train.recipe import Recipe
from hierarch.train.sources import open_data


def sample(
    name: str, recipe: Recipe, *, size: Sides, in_chans: int, count: int
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Images (N, C, H, W), at most `count`; their labels (N), where they have some; and the names
    of the classes.

    `name` is whatever `open_data` takes, of which the held-out images are taken where there are
    some; or a folder of images alone. The images are spread evenly over the set. Raises
    `DataError` for one that cannot be read.
    """
    require("torchvision")
    from torchvision.datasets.folder import is_image_file

    from hierarch.train.images import Broken, Images, evaluation
    from hierarch.train.networks import image_files
    from hierarch.train.reading import read_image

    transform = evaluation(recipe, size, in_chans)
    path = Path(name)
    if path.is_dir() and any(is_image_file(file.name) for file in path.iterdir()):
        files = image_files([path])
        chosen = [files[i] for i in _spread(len(files), count)]
        return torch.stack([transform(read_image(f, in_chans)) for f in chosen]), None, ()
    data = open_data(name)
    source = data.held_out or data.train
    images = Images(source, transform, in_chans=in_chans)
    made = [images[0, i] for i in _spread(len(images), count)]
    for one in made:
        if isinstance(one, Broken):
            raise DataError(str(one))
    return (
        torch.stack([one[0] for one in made if not isinstance(one, Broken)]),
        torch.tensor([one[1] for one in made if not isinstance(one, Broken)]),
        source.classes,
    )


def _spread(length: int, count: int) -> list[int]:
    """At most `count` numbers below `length`, evenly spread.

    >>> _spread(10, 4)
    [0, 2, 5, 7]
    """
    taken = min(length, count)
    return [i * length // taken for i in range(taken)]
