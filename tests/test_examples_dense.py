"""The examples of detection and segmentation, for two steps, on images in every layout."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import noise, tiny
from PIL import Image

import hierarch
from hierarch.errors import DataError, HierarchError

# pycocotools reads masks as numpy 1 did
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

ROOT = Path(__file__).parents[1]
SIDE = 48
CLASSES = {1: "disk", 2: "square"}
OBJECTS = [
    [(1, (4, 6, 24, 26)), (2, (20, 20, 44, 40))],
    [(2, (8, 4, 40, 30))],
    [(1, (2, 2, 30, 30))],
]
"""For each image, (class, box); a later object covers an earlier one."""
SPLITS = {"train": ["a", "b"], "val": ["c"]}


@pytest.fixture(scope="module", autouse=True)
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield


@pytest.fixture
def data():
    return importlib.import_module("dense.data")


def picture(objects):
    pixels = np.full((SIDE, SIDE, 3), 30, np.uint8)
    for number, (x0, y0, x1, y1) in objects:
        pixels[y0:y1, x0:x1] = (200, 90 * number, 40)
    return Image.fromarray(pixels)


def mask(objects, ignored=False):
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    for number, (x0, y0, x1, y1) in objects:
        pixels[y0:y1, x0:x1] = number
    if ignored:
        pixels[-1] = 255
    return Image.fromarray(pixels)


IMAGES = dict(zip("abc", OBJECTS, strict=True))


def write_voc(folder):
    for part in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / part).mkdir()
    for name, objects in IMAGES.items():
        picture(objects).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
        mask(objects, ignored=True).save(folder / "SegmentationClass" / f"{name}.png")
        rows = "".join(
            f"<object><name>{CLASSES[number]}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}"
            f"</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for number, (x0, y0, x1, y1) in objects
        )
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{rows}</annotation>")
    for kind in ("Main", "Segmentation"):
        lists = folder / "ImageSets" / kind
        lists.mkdir(parents=True)
        for split, names in SPLITS.items():
            (lists / f"{split}.txt").write_text("\n".join(names) + "\n")


def write_coco(folder):
    (folder / "annotations").mkdir()
    for split, names in SPLITS.items():
        (folder / split).mkdir()
        images, marks = [], []
        for number, name in enumerate(names):
            picture(IMAGES[name]).save(folder / split / f"{name}.jpg", quality=95)
            file = {"file_name": f"{name}.jpg", "height": SIDE, "width": SIDE}
            images.append({"id": number, **file})
            for kind, (x0, y0, x1, y1) in IMAGES[name]:
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                drawn = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                ids = {"id": len(marks), "image_id": number, "category_id": 10 * kind}
                marks.append({**ids, **box, "segmentation": drawn, "iscrowd": 0})
        told = {
            "images": images,
            "annotations": marks,
            "categories": [{"id": 10 * kind, "name": name} for kind, name in CLASSES.items()],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(told))


def write_masks(folder, kind="masks"):
    for split, names in SPLITS.items():
        for part in ("images", kind):
            (folder / split / part).mkdir(parents=True)
        for name in names:
            picture(IMAGES[name]).save(folder / split / "images" / f"{name}.png")
            own = [(i, box) for i, (_, box) in enumerate(IMAGES[name], start=1)]
            drawn = mask(IMAGES[name] if kind == "masks" else own)
            drawn.save(folder / split / kind / f"{name}.png")


def write_instances(folder):
    write_masks(folder, "instances")


@pytest.fixture
def folder(tmp_path, request):
    made = tmp_path / "data"
    made.mkdir()
    request.param(made)
    return made


def spec(path, mixer, **fields):
    fields = {"mixer": mixer, "stages": [{"dim": 8, "depth": 1}, {"dim": 16, "depth": 1}], **fields}
    hierarch.dump(hierarch.load(tiny(name=mixer) | fields), path / f"{mixer}.yaml")
    return str(path / f"{mixer}.yaml")


def trained(script, folder, output, *options):
    specs = [spec(folder.parent, mixer) for mixer in ("pooling", "identity")]
    main = importlib.import_module(script).main
    common = ["--epochs=2", "--batch-size=2", "--size=48", "--channels=16", "--every=2"]
    main(["--data", str(folder), "--spec", *specs, "--output", str(output), *common, *options])
    results = json.loads((output / "results.json").read_text())
    assert list(results["networks"]) == ["pooling", "identity"]
    assert results["data"] == "data"
    for name, network in results["networks"].items():
        assert [row["epoch"] for row in network["epochs"]] == [1, 2]
        assert all(0 < row["loss"] < 20 for row in network["epochs"])
        assert 0 < network["backbone_parameters"] < network["parameters"]
        assert torch.load(output / f"{name}.pth").keys()
    assert "pooling" in (output / "curve.svg").read_text()
    assert np.array(Image.open(output / "predictions.jpg")).std() > 10
    return [network["epochs"][-1] for network in results["networks"].values()]


@pytest.mark.parametrize("folder", [write_voc, write_coco], indirect=True)
def test_a_detector_is_trained(folder, tmp_path):
    options = ("--anchors=2", "--proposals=32", "--score=0")
    for row in trained("detection", folder, tmp_path / "out", *options):
        assert 0 <= row["mAP"] <= row["mAP50"] <= 1
        assert "mAP disk" in row


@pytest.mark.parametrize("folder", [write_voc, write_coco, write_instances], indirect=True)
def test_a_unet_is_trained(folder, tmp_path):
    for row in trained("segmentation", folder, tmp_path / "out"):
        assert 0 <= row["mIoU"] <= 1
        assert "IoU background" in row or "IoU 0" in row


def test_boxes_are_the_same_in_both_layouts(tmp_path, data):
    for name, write in (("voc", write_voc), ("coco", write_coco)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
        for split, names in SPLITS.items():
            photos = data.read_boxes(tmp_path / name, split, [])
            assert [photo.path.stem for photo in photos] == names
            for photo in photos:
                wanted = IMAGES[photo.path.stem]
                assert photo.boxes == [list(map(float, box)) for _, box in wanted]
                assert photo.names == [CLASSES[number] for number, _ in wanted]


@pytest.mark.parametrize(
    ("folder", "classes"),
    [
        (write_voc, ["0", "1", "2"]),
        (write_coco, ["background", "disk", "square"]),
        (write_masks, ["0", "1", "2"]),
        (write_instances, ["background", "object"]),
    ],
    indirect=["folder"],
)
def test_masks_are_the_same_in_every_layout(folder, classes, data):
    found, scenes = data.read_masks(folder, None, ["train2017", "train"])
    assert found == classes
    assert [scene.path.stem for scene in scenes] == SPLITS["train"]
    images = data.Masks(scenes, size=SIDE, flip=False)
    for scene, (image, pixels) in zip(scenes, images, strict=False):
        wanted = torch.from_numpy(np.array(mask(IMAGES[scene.path.stem]))).long()
        if len(classes) == 2:
            wanted = wanted.clamp(max=1)
        known = pixels != data.IGNORED
        assert known[:-1].all()
        assert torch.equal(pixels[known], wanted[known])
        assert image.shape == (3, SIDE, SIDE)
        assert 0 <= image.min() < image.max() <= 1


@pytest.mark.parametrize("folder", [write_voc], indirect=True)
def test_boxes_move_with_the_image_and_stay_inside(folder, data):
    [photo, _] = data.read_boxes(folder, "train", [])
    photo.add(40, 40, 60, 47, "disk")
    photo.add(30, 30, 30, 40, "disk")  # empty
    seen = {}
    for _ in range(20):
        image, target = data.Boxes([photo], ["disk", "square"], flip=True)[0]
        seen[target["boxes"][0, 0].item()] = image, target
    (plain, told), (flipped, other) = seen[4.0], seen[48.0 - 24]
    assert torch.equal(plain.flip(2), flipped)
    assert told["boxes"].tolist()[1:] == [[20, 20, 44, 40], [40, 40, 48, 47]]
    assert other["boxes"].tolist()[1:] == [[4, 20, 28, 40], [0, 40, 8, 47]]
    assert told["labels"].tolist() == other["labels"].tolist() == [1, 2, 1]


@pytest.mark.parametrize("folder", [write_coco], indirect=True)
def test_mistakes_are_told(folder, data, tmp_path):
    with pytest.raises(DataError, match="wanted the split test, found train, val"):
        data.read_boxes(folder, "test", [])
    with pytest.raises(DataError, match="wanted the split train or trainval, found neither VOC's"):
        data.read_masks(tmp_path, None, ["train", "trainval"])
    photos = data.read_boxes(folder, "train", [])
    with pytest.raises(DataError, match="classes without an image to train on: square"):
        data.Boxes(photos, ["disk"], flip=False)
    with pytest.raises(DataError, match="a split has no images"):
        data.Masks([], size=32, flip=False)
    main = importlib.import_module("segmentation").main
    arguments = ["--data", str(folder), "--spec", spec(tmp_path, "identity"), "--size=48"]
    with pytest.raises(HierarchError, match="there is no batch of 4 images"):
        main(arguments)


def test_intersection_over_union():
    overlap = importlib.import_module("segmentation").overlap
    masks = torch.tensor([[[0, 1, 1, 255], [0, 0, 1, 1]]])
    found = torch.tensor([[[0, 1, 0, 1], [0, 1, 1, 1]]])
    logits = torch.nn.functional.one_hot(found, 3).permute(0, 3, 1, 2).float()
    score = overlap(lambda images: logits, [(noise(1, 3, 2, 4), masks)], ["0", "1", "2"], "cpu")
    assert score == pytest.approx({"mIoU": (2 / 4 + 3 / 5) / 2, "IoU 0": 2 / 4, "IoU 1": 3 / 5})
