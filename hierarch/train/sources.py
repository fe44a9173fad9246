"""Where labelled images come from: a folder, tar files, arrays, or a dataset by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hierarch.errors import DataError
from hierarch.needs import require
from hierarch.spec.base import nearest
from hierarch.train import arrays, shards

TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test")


class Source(Protocol):
    """Labelled images by number.

    >>> digits = open_data("digits").held_out
    >>> len(digits), digits.classes[:3], digits.where(0)
    (360, ('0', '1', '2'), 'image 0 of digits (test)')
    """

    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Any, int]:
        """The image, of PIL or an array (H, W, C) of bytes, and the number of its class."""

    def where(self, index: int) -> str:
        """What a message calls an image: its file, or its place in a file."""


@dataclass(frozen=True)
class Data:
    """A set of images to train on, and one that is held out to evaluate on, where there is one.

    >>> data = open_data("digits")
    >>> data.split("val") is data.held_out
    True
    """

    name: str
    train: Source
    held_out: Source | None

    def split(self, name: str) -> Source:
        """ "train", or "val" for the held-out images. Raises `DataError` if there are none."""
        if name == "train":
            return self.train
        if self.held_out is None:
            raise DataError(
                f"{self.name} has no held-out images (a folder {', '.join(HELD_OUT)}): give "
                "--split train to use all"
            )
        return self.held_out


def open_data(name: str, *, root: Path | None = None, download: bool = False) -> Data:
    """The images of a folder, or of tar, idx or npz files, or of a dataset by its name.

    `root` is where datasets of torchvision are kept (by default `data`). They are downloaded only
    if `download` says so. Raises `DataError`.

    >>> data = open_data("digits")
    >>> len(data.train), len(data.held_out)
    (1437, 360)
    """
    path = Path(name)
    if name == DIGITS and not path.exists():
        data = _from_arrays(name, _digits())
    elif name in NAMED and not path.exists():
        data = _named(name, root or Path("data"), download=download)
    elif path.suffix == ".npz" and path.is_file():
        data = _from_arrays(name, arrays.read_npz(path))
    elif path.is_dir():
        found = arrays.read_idx(path)
        data = _from_arrays(name, found) if found else _folder(path)
    elif "://" in name:
        raise DataError(f"{name}: only local files are read; copy them to this machine")
    elif path.suffix == ".tar":
        raise DataError(f"{name}: give the folder with train-*.tar and val-*.tar")
    elif path.exists():
        raise DataError(f"{name}: is neither a folder of images nor an .npz file")
    else:
        known = (*NAMED, DIGITS)
        raise DataError(f"no such folder, file or dataset: {name!r}, {nearest(name, known)}")
    if len(data.train.classes) < 2:
        only = "".join(f" ({label})" for label in data.train.classes)
        raise DataError(f"{name} has a single class{only}; a classifier needs two at least")
    return data


class Files:
    """An image folder: a folder for each class, with its images in it, at any depth."""

    def __init__(self, folder: Path) -> None:
        from torchvision.datasets import ImageFolder

        self.folder = folder
        try:
            found = ImageFolder(str(folder))
        except FileNotFoundError as error:
            reason = str(error).splitlines()[0].split(". Supported")[0]
            message = "an image folder holds a folder for each class, with images in it"
            raise DataError(f"{folder}: {message}. {reason}") from None
        self.classes = tuple(found.classes)
        self.samples: list[tuple[str, int]] = found.samples

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        path, label = self.samples[index]
        with Image.open(path) as image:
            image.load()
            return image, label

    def where(self, index: int) -> str:
        return self.samples[index][0]


class Numbered:
    """A dataset that gives (image, label) by number."""

    def __init__(self, name: str, dataset: Any, classes: Sequence[str]) -> None:
        self.name, self.dataset, self.classes = name, dataset, tuple(classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[Any, int]:
        image, label = self.dataset[index]
        return image, int(label)

    def where(self, index: int) -> str:
        return f"image {index} of {self.name}"


def _folder(path: Path) -> Data:
    train = next((path / name for name in TRAIN if (path / name).is_dir()), None)
    if train is None and shards.tar_files(path):
        return Data(str(path), *shards.open_shards(path, TRAIN, HELD_OUT))
    if train is None:
        return Data(str(path), Files(path), None)
    held_out = next((path / name for name in HELD_OUT if (path / name).is_dir()), None)
    data = Data(str(path), Files(train), Files(held_out) if held_out else None)
    if data.held_out and data.held_out.classes != data.train.classes:
        here, there = set(data.train.classes), set(data.held_out.classes)
        lists = [
            f"only in {folder}: {', '.join(sorted(names)[:5])}{' ...' * (len(names) > 5)}"
            for folder, names in ((train, here - there), (held_out, there - here))
            if names
        ]
        raise DataError(f"the classes of {train} and {held_out} differ; {'; '.join(lists)}")
    return data


DIGITS = "digits"


def _digits() -> arrays.Splits:
    """scikit-learn's 1,797 gray images of 8x8, which come with the package; each fifth one is held
    out, the first among them."""
    require("sklearn", extra="digits")
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * (255 / 16)).round().astype("uint8")[..., None]  # values from 0 to 16
    held_out = np.arange(len(images)) % 5 == 0
    splits = {"train": ~held_out, "test": held_out}
    return {name: (images[chosen], found.target[chosen]) for name, chosen in splits.items()}


def _from_arrays(name: str, found: arrays.Splits) -> Data:
    count = 1 + max(int(labels.max(initial=0)) for _, labels in found.values())
    classes = [str(label) for label in range(count)]
    sources = {
        split: Numbered(f"{name} ({split})", arrays.Pairs(*pair), classes)
        for split, pair in found.items()
    }
    return Data(name, sources["train"], sources.get("test"))


def _split(word: str) -> Callable[[bool], dict[str, Any]]:
    return lambda train: {"split": "train" if train else word}


def _flag(train: bool) -> dict[str, Any]:
    return {"train": train}


NAMED: dict[str, tuple[str, Callable[[bool], dict[str, Any]]]] = {
    "cifar10": ("CIFAR10", _flag),
    "cifar100": ("CIFAR100", _flag),
    "mnist": ("MNIST", _flag),
    "fashion-mnist": ("FashionMNIST", _flag),
    "kmnist": ("KMNIST", _flag),
    "svhn": ("SVHN", _split("test")),
    "stl10": ("STL10", _split("test")),
    "food101": ("Food101", _split("test")),
    "gtsrb": ("GTSRB", _split("test")),
    "dtd": ("DTD", _split("val")),
    "flowers102": ("Flowers102", _split("val")),
}
"""torchvision's class of each dataset that can be named, and how it is asked for a split."""


def _named(name: str, root: Path, *, download: bool) -> Data:
    from torchvision import datasets

    cls, arguments = NAMED[name]

    def source(train: bool) -> Source:
        try:
            made = getattr(datasets, cls)(str(root), **arguments(train), download=download)
        except RuntimeError as error:  # torchvision's, for files that are missing or damaged
            if download:
                raise DataError(f"{name} could not be downloaded: {error}") from None
            raise DataError(f"{name} is not in {root}; --download fetches it there") from None
        labels = getattr(made, "classes", None) or _labels(made)
        return Numbered(name, made, [str(label) for label in labels])

    return Data(name, source(True), source(False))


def _labels(dataset: Any) -> list[int]:
    """The numbers of classes where a dataset does not name them."""
    labels = next(
        getattr(dataset, field)
        for field in ("labels", "targets", "_labels")
        if getattr(dataset, field, None) is not None
    )
    return list(range(int(max(labels)) + 1))
