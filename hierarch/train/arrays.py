"""Images in arrays: idx files (MNIST's format) and npz files. Nothing in them is run."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierarch.errors import DataError

Array = NDArray[Any]
Splits = dict[str, tuple[Array, Array]]
""" "train", and "test" where there is one: images (N, H, W, C) of bytes, and labels (N,)."""

NAMES = {
    "train": [("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels")],
    "test": [("x_test", "y_test"), ("val_images", "val_labels"), ("test_images", "test_labels")],
}
"""The names that an npz file's arrays may have: Keras's, MedMNIST's, and one split alone."""

IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Pairs:
    """(image, label) by number."""

    def __init__(self, images: Array, labels: Array) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Array, int]:
        return self.images[index], int(self.labels[index])


def read_npz(path: Path) -> Splits:
    """The splits of an npz file. Raises `DataError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as npz: {error}") from None
    splits = {}
    for split, names in NAMES.items():
        for images, labels in names:
            if images in held and labels in held:
                splits[split] = _checked(f"{path} ({images})", held[images], held[labels])
                break
    if "train" not in splits:
        wanted = " or ".join(f"{images} and {labels}" for images, labels in NAMES["train"])
        raise DataError(f"{path}: should hold {wanted}, holds {', '.join(held) or 'nothing'}")
    return splits


def read_idx(folder: Path) -> Splits:
    """The splits of a folder with MNIST's files, compressed or not; none where it has none."""
    splits = {}
    for split, names in IDX.items():
        paths = [_there(folder, name) for name in names]
        if all(paths):
            images, labels = (_idx(path) for path in paths if path)
            splits[split] = _checked(str(paths[0]), images, labels)
    return splits if "train" in splits else {}


def _there(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _idx(path: Path) -> Array:
    """Two zero bytes, the type (8: bytes), the rank, each length as four bytes, the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    rank = raw[3] if len(raw) > 3 else 0
    header = 4 + 4 * rank
    shape = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4)]
    if raw[:3] != b"\0\0\x08" or len(raw) != header + np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: is no idx file of bytes, or one that is cut short")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _checked(where: str, images: Array, labels: Array) -> tuple[Array, Array]:
    labels = labels.reshape(-1)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise DataError(
            f"{where}: images should be bytes (N, H, W) or (N, H, W, C), got "
            f"{images.dtype} {images.shape}"
        )
    if len(labels) != len(images) or labels.dtype.kind not in "ui" or labels.min() < 0:
        raise DataError(
            f"{where}: should have {len(images)} labels, whole numbers from 0, got "
            f"{len(labels)} of {labels.dtype}"
        )
    return images, labels
