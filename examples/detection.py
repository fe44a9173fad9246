"""Faster R-CNN on any backbone: trained on a folder of images with boxes, scored by mAP.

    python examples/detection.py --data VOC_OR_COCO --spec swin_tiny --weights swin_tiny.pth

`pip install 'hierarch-vision[detection]'`. Several specs are
trained one after the other, alike. The layouts of folders are in examples/dense/data.py. Written
are results.json, curve.svg, predictions.jpg and the weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from dense import data, training
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

import hierarch
from hierarch.integrations.torchvision import fpn_backbone


def detector(spec: hierarch.BackboneSpec, classes: int, told: argparse.Namespace) -> FasterRCNN:
    """Faster R-CNN, whose head is as much smaller than torchvision's as the pyramid is."""
    backbone = fpn_backbone(spec, out_channels=told.channels, frozen_stages=told.frozen_stages)
    training.start(backbone.body, told.weights)
    wide = 4 * told.channels
    return FasterRCNN(
        backbone,
        min_size=told.size,
        max_size=2 * told.size,
        rpn_anchor_generator=backbone.anchors(scales=[told.anchors]),
        box_roi_pool=backbone.roi_pool(7),
        box_head=TwoMLPHead(told.channels * 7**2, wide),
        box_predictor=FastRCNNPredictor(wide, 1 + classes),
        rpn_post_nms_top_n_train=told.proposals,
        rpn_post_nms_top_n_test=told.proposals,
        box_batch_size_per_image=told.proposals // 4,
    )


def losses(model: nn.Module, device: str, images: Sequence[Tensor], targets: Sequence) -> Tensor:
    return sum(model(moved(images, device), [moved(t, device) for t in targets]).values())


def precision(model: nn.Module, batches: DataLoader, classes: list[str], device: str) -> dict:
    """COCO's mean average precision, of all classes and of each."""
    metric = MeanAveragePrecision(class_metrics=True)
    for images, targets in batches:
        metric.update([moved(found, "cpu") for found in model(moved(images, device))], targets)
    scores = metric.compute()
    numbers, each = scores["classes"].view(-1).tolist(), scores["map_per_class"].view(-1).tolist()
    return {
        "mAP": float(scores["map"]),
        "mAP50": float(scores["map_50"]),
        **{f"mAP {classes[n - 1]}": score for n, score in zip(numbers, each, strict=True)},
    }


def moved(tensors: Iterable[Tensor] | dict[str, Tensor], device: str) -> list | dict:
    if isinstance(tensors, dict):
        return {key: value.to(device) for key, value in tensors.items()}
    return [tensor.to(device) for tensor in tensors]


def pairs(batch: list[tuple]) -> tuple[tuple, ...]:
    """Images and targets of a batch: images may have different sizes."""
    return tuple(zip(*batch, strict=True))


def paint(axes: Axes, found: dict[str, Tensor]) -> None:
    for (x0, y0, x1, y1), label in zip(found["boxes"], found["labels"], strict=True):
        color = training.COLORS[(label - 1) % len(training.COLORS)]
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=color))


def main(arguments: list[str] | None = None) -> None:
    parser = training.options(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--size", type=int, default=800, help="pixels of an image's shorter side (%(default)s)")
    add("--channels", type=int, default=256, help="of the feature pyramid (%(default)s)")
    add("--anchors", type=float, default=8, help="side of the anchors, in strides (%(default)s)")
    add("--proposals", type=int, default=1000, help="regions that the head looks at (%(default)s)")
    add(
        "--score", type=float, default=0.5, help="least score of a box in the picture (%(default)s)"
    )
    told = training.parse(parser, arguments)
    specs = [hierarch.load(spec) for spec in told.spec]

    photos = data.read_boxes(told.data, told.train, ["trainval", "train", "train2017"])
    photos = [photo for photo in photos if photo.boxes]
    classes = sorted({name for photo in photos for name in photo.names})
    held_out = data.read_boxes(told.data, told.test, ["test", "val", "val2017"])
    train = data.Boxes(photos, classes, flip=True)
    test = data.Boxes(held_out, classes, flip=False)
    print(f"{len(train)} images to train on, {len(test)} held out; {', '.join(classes)}")
    options = {"batch_size": told.batch_size, "collate_fn": pairs}
    shown = [test[i] for i in training.few(len(test))]
    rows, networks = {"truth": [target for _, target in shown]}, {}
    for spec in specs:
        torch.manual_seed(told.seed)
        model = detector(spec, len(classes), told).to(told.device)
        networks[spec.name] = training.describe(model, model.backbone.body, told.size)
        networks[spec.name]["epochs"] = training.fit(
            model,
            DataLoader(train, shuffle=True, **options),
            partial(losses, model, told.device),
            partial(precision, model, DataLoader(test, **options), classes, told.device),
            told,
        )
        training.write(told, networks, "mAP50")
        torch.save(model.state_dict(), told.output / f"{spec.name}.pth")
        with torch.inference_mode():
            found = model(moved((image for image, _ in shown), told.device))
        rows[spec.name] = [
            {key: value[one["scores"] >= told.score].cpu() for key, value in one.items()}
            for one in found
        ]
        images = [image for image, _ in shown]
        training.picture(told.output / "predictions.jpg", images, rows, paint, classes)


if __name__ == "__main__":
    training.run(main)
