"""Images with boxes or masks, from a folder as VOC's or COCO's, or with images and masks.

VOC        JPEGImages/*.jpg, and Annotations/*.xml with ImageSets/Main/SPLIT.txt for boxes, or
           SegmentationClass/*.png with ImageSets/Segmentation/SPLIT.txt for masks
COCO       annotations/instances_SPLIT.json and SPLIT/*.jpg
masks      SPLIT/images/*, and SPLIT/masks/*.png whose pixels are class numbers, or
           SPLIT/instances/*.png, in which 0 is background and each object has its own number
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from hierarch.errors import DataError

IGNORED = 255
"""The class of pixels that count for nothing, as in VOC."""


T = TypeVar("T")


class Photo(NamedTuple):
    """An image with named boxes, (x0, y0, x1, y1) in pixels."""

    path: Path
    boxes: list[list[float]]
    names: list[str]

    def add(self, x0: float, y0: float, x1: float, y1: float, name: str) -> None:
        """Adds a box, unless it is empty."""
        if x1 > x0 and y1 > y0:
            self.boxes.append([x0, y0, x1, y1])
            self.names.append(name)


class Scene(NamedTuple):
    """An image, and a function that reads its class numbers, (H, W)."""

    path: Path
    mask: Callable[[], np.ndarray]


class Boxes(Dataset):
    """(image, target) as torchvision's detectors take them; classes are numbered from 1."""

    def __init__(self, photos: list[Photo], classes: list[str], *, flip: bool) -> None:
        unknown = {name for photo in photos for name in photo.names} - {*classes}
        if unknown:
            raise DataError(f"classes without an image to train on: {', '.join(sorted(unknown))}")
        self.photos = some(photos)
        self.numbers = {name: number for number, name in enumerate(classes, start=1)}
        inside = [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()]
        flips = [v2.RandomHorizontalFlip(0.5 if flip else 0)]
        self.change = v2.Compose([*inside, *flips, v2.ToPureTensor()])

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        photo = self.photos[index]
        image = read_image(photo.path)
        boxes = torch.tensor(photo.boxes, dtype=torch.float32).reshape(-1, 4)
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[1:]),
            "labels": torch.tensor([self.numbers[n] for n in photo.names], dtype=torch.int64),
        }
        image, target = self.change(image, target)
        return image / 255, target


class Masks(Dataset):
    """(image, class numbers), both of `size` x `size` pixels."""

    def __init__(self, scenes: list[Scene], *, size: int, flip: bool) -> None:
        self.scenes = some(scenes)
        half = 0.5 if flip else 0
        flips = [v2.RandomHorizontalFlip(half), v2.RandomVerticalFlip(half)]
        self.change = v2.Compose([v2.Resize((size, size)), *flips, v2.ToPureTensor()])

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        scene = self.scenes[index]
        mask = tv_tensors.Mask(torch.from_numpy(scene.mask().astype(np.int64)))
        image, mask = self.change(read_image(scene.path), mask)
        return image / 255, mask


def some(found: list[T]) -> list[T]:
    """The same list. Raises `DataError` if it is empty."""
    if not found:
        raise DataError("a split has no images, or none with a box")
    return found


def read_image(path: Path) -> torch.Tensor:
    """(3, H, W), bytes."""
    with Image.open(path) as image:
        return tv_tensors.Image(v2.functional.pil_to_tensor(image.convert("RGB")))


def read_boxes(folder: Path, split: str | None, usual: list[str]) -> list[Photo]:
    """The images of a split with their boxes, in VOC's layout or in COCO's; without a split, of the
    first of the `usual` ones that the folder has. Raises `DataError` where there is none."""
    if (lists := folder / "ImageSets" / "Main").is_dir():
        return [_voc_boxes(folder, name) for name in _listed(lists, split, usual)]
    coco, images = _coco(folder, split, usual)
    photos = []
    for number, row in coco.imgs.items():
        marks = [mark for mark in coco.imgToAnns[number] if not mark.get("iscrowd")]
        photo = Photo(images / row["file_name"], [], [])
        for x, y, w, h, name in ((*m["bbox"], coco.cats[m["category_id"]]["name"]) for m in marks):
            photo.add(x, y, x + w, y + h, name)
        photos.append(photo)
    return photos


def read_masks(folder: Path, split: str | None, usual: list[str]) -> tuple[list[str], list[Scene]]:
    """The names of classes, and the images of a split with their masks, as `read_boxes`."""
    if (lists := folder / "ImageSets" / "Segmentation").is_dir():
        images, masks = folder / "JPEGImages", folder / "SegmentationClass"
        names = _listed(lists, split, usual)
        return _numbered([_scene(_image(images, name), masks) for name in names])
    if parts := {path.parent.name: path.parent for path in folder.glob("*/images")}:
        part = parts[_chosen(parts, split, usual, folder)]
        paths = sorted((part / "images").iterdir())
        if not (part / "instances").is_dir():
            return _numbered([_scene(path, part / "masks") for path in paths])
        scenes = [_scene(path, part / "instances") for path in paths]
        objects = [Scene(path, lambda mask=mask: mask() > 0) for path, mask in scenes]
        return ["background", "object"], objects
    coco, images = _coco(folder, split, usual)
    classes = {number: place for place, number in enumerate(coco.cats, start=1)}

    def mask(number: int) -> np.ndarray:
        pixels = np.zeros((coco.imgs[number]["height"], coco.imgs[number]["width"]), np.int64)
        for mark in coco.imgToAnns[number]:
            pixels[coco.annToMask(mark) > 0] = classes[mark["category_id"]]
        return pixels

    scenes = [Scene(images / row["file_name"], partial(mask, n)) for n, row in coco.imgs.items()]
    return ["background", *(category["name"] for category in coco.cats.values())], scenes


def _voc_boxes(folder: Path, name: str) -> Photo:
    photo = Photo(_image(folder / "JPEGImages", name), [], [])
    for row in ElementTree.parse(folder / "Annotations" / f"{name}.xml").iter("object"):
        sides = (float(row.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
        x0, y0, x1, y1 = sides
        # VOC counts pixels from 1
        photo.add(max(x0 - 1, 0), max(y0 - 1, 0), x1, y1, row.findtext("name"))
    return photo


def _coco(folder: Path, split: str | None, usual: list[str]) -> tuple[COCO, Path]:
    files = {path.stem[10:]: path for path in (folder / "annotations").glob("instances_*.json")}
    name = _chosen(files, split, usual, folder)
    with redirect_stdout(io.StringIO()):  # it tells of its progress
        return COCO(files[name]), folder / name


def _listed(lists: Path, split: str | None, usual: list[str]) -> list[str]:
    """The names of images in a list of VOC's."""
    files = {path.stem: path for path in lists.glob("*.txt")}
    lines = files[_chosen(files, split, usual, lists)].read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _chosen(splits: Iterable[str], split: str | None, usual: list[str], folder: Path) -> str:
    wanted = usual if split is None else [split]
    if found := next((name for name in wanted if name in splits), None):
        return found
    has = ", ".join(sorted(splits)) or "neither VOC's layout, nor COCO's, nor masks: see data.py"
    raise DataError(f"{folder}: wanted the split {' or '.join(wanted)}, found {has}")


def _image(folder: Path, name: str) -> Path:
    if found := next(folder.glob(f"{name}.*"), None):
        return found
    raise DataError(f"{folder / name}.*: there is no such image")


def _scene(path: Path, masks: Path) -> Scene:
    def mask() -> np.ndarray:
        with Image.open(masks / f"{path.stem}.png") as image:
            return np.array(image)

    return Scene(path, mask)


def _numbered(scenes: list[Scene]) -> tuple[list[str], list[Scene]]:
    """Scenes with the names of their classes, which are numbers."""
    masks = (scene.mask() for scene in scenes)
    highest = max(int(mask[mask != IGNORED].max(initial=1)) for mask in masks)
    return [str(number) for number in range(highest + 1)], scenes
