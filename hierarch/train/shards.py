"""Images in tar files, as webdataset writes them: read in place, by number, in any order.

A sample is the members of one path up to the first dot of the file's name: an image (`0001.jpg`)
and its class (`0001.cls`, a whole number as text). Members of other kinds are left alone. Nothing
is unpacked to disk, and nothing is unpickled.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hierarch.errors import DataError

IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff", "gif"}
MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""The path of a sample, and the kind of one of its members."""
CLASSES = 1_000_000
"""More than any set of images has."""


@dataclass
class Index:
    """What tar files hold: an entry for each sample."""

    paths: list[str] = field(default_factory=list)
    """Of the image in the tar file."""
    places: list[tuple[int, int, int]] = field(default_factory=list)
    """Number of the tar file, offset of the image in it, and size."""
    labels: list[int] = field(default_factory=list)


class Shards:
    """The samples of tar files, in the order in which they stand there."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read which members the files have, which takes as long as reading their headers."""
        self.files = list(files)
        found = Index()
        for number, file in enumerate(files):
            add(found, number, file)
        # arrays: processes that read images share them, and do not each copy them
        self.places = np.array(found.places, np.int64)
        self.labels = np.array(found.labels, np.int64)
        self.paths = np.array([path.encode("utf-8", "surrogateescape") for path in found.paths])
        self.classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        number, offset, size = self.places[index].tolist()
        with self.files[number].open("rb") as file:
            file.seek(offset)
            held = io.BytesIO(file.read(size))
        with Image.open(held) as image:
            image.load()
            return image, int(self.labels[index])

    def where(self, index: int) -> str:
        return (
            f"{self.files[self.places[index, 0]]}: {self.paths[index].decode('utf-8', 'replace')}"
        )


def open_shards(
    folder: Path, train: Sequence[str], held_out: Sequence[str]
) -> tuple[Shards, Shards | None]:
    """The tar files of a folder with a word of `train` in their names (`train-0001.tar`), and those
    with the first word of `held_out` that there is. Raises `DataError`."""
    files = tar_files(folder)
    of_train = [file for file in files if words(file) & {*train}]
    of_held_out = [[file for file in files if word in words(file)] for word in held_out]
    if not of_train:
        raise DataError(
            f"{folder}: its tar files should have names such as train-0001.tar and val-0001.tar, "
            f"and one is {files[0].name}"
        )
    others = next(filter(None, of_held_out), [])
    sources = [Shards(files) for files in (of_train, others) if files]
    classes = tuple(map(str, range(1 + max(int(source.labels.max()) for source in sources))))
    for source in sources:
        source.classes = classes
    return sources[0], sources[1] if others else None


def tar_files(folder: Path) -> list[Path]:
    """The tar files of a folder, sorted."""
    return sorted(file for file in folder.glob("*.tar") if file.is_file())


def words(file: Path) -> set[str]:
    """The words of a file's name.

    >>> sorted(words(Path("imagenet1k-train-0001.tar")))
    ['0001', 'imagenet1k', 'train']
    """
    return {*re.split(r"[-_.]", file.stem.lower())}


def add(found: Index, number: int, file: Path) -> None:
    """Add the samples of a tar file to the index. Raises `DataError` for a file that is damaged,
    and for a sample without its image or its class."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                path = MEMBER.fullmatch(member.name)
                if path is None or path[2].lower() not in IMAGES | {"cls"}:
                    continue
                held: dict[str, Any] = labels if path[2].lower() == "cls" else images
                if path[1] in held or not member.isreg() or member.issparse():
                    second = "is the second of its sample" if path[1] in held else "is no file"
                    raise DataError(f"{file}: {member.name} {second}; pack the shard again")
                held[path[1]] = _label(file, tar, member) if held is labels else member
            # tarfile takes a damaged header for the end
            with file.open("rb") as raw:
                raw.seek(tar.offset)
                if raw.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError(f"damaged at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as a tar file, uncompressed: {error}") from None
    if not images and not labels:
        raise DataError(f"{file}: holds no samples, such as 0001.jpg with its class in 0001.cls")
    for sample in sorted(images.keys() ^ labels.keys()):
        missing = "class: add .cls with a whole number" if sample in images else "image"
        raise DataError(f"{file}: {sample} has no {missing}")
    for sample, member in images.items():
        found.paths.append(member.name)
        found.places.append((number, member.offset_data, member.size))
        found.labels.append(labels[sample])


def _label(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    held = tar.extractfile(member)
    assert held is not None  # a file, and no link
    text = held.read(20).strip()
    if not text.isdigit() or int(text) >= CLASSES:
        raise DataError(f"{file}: {member.name} should be a whole number from 0, as text")
    return int(text)
