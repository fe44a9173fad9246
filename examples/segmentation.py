"""U-Net on any backbone: trained on a folder of images with masks, scored by mean IoU.

    python examples/segmentation.py --data VOC_OR_COCO --spec swin_tiny --weights swin_tiny.pth

`pip install 'hierarch-vision[detection]'`. Several specs are
trained one after the other, alike. The layouts of folders are in examples/dense/data.py. Written
are results.json, curve.svg, predictions.jpg and the weights.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from dense import data, training
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from torch import Tensor, nn
from torch.utils.data import DataLoader

import hierarch
from hierarch.integrations.segmentation_models import register


def unet(spec: hierarch.BackboneSpec, classes: int, told: argparse.Namespace) -> smp.Unet:
    """A U-Net that ends at the coarsest stage, with a decoder that narrows to an eighth or so."""
    depth = max(spec.strides()[-1]).bit_length() - 1
    wide = [max(told.channels >> i, 16) for i in range(depth)]
    model = smp.Unet(
        register(spec), depth, encoder_weights=None, decoder_channels=wide, classes=classes
    )
    training.start(model.encoder.model, told.weights)
    model.encoder.model.freeze(told.frozen_stages)
    return model


def logits(model: nn.Module, device: str, images: Tensor) -> Tensor:
    mean, std = ([[0.485], [0.456], [0.406]], [[0.229], [0.224], [0.225]])  # ImageNet's
    normed = (images - torch.tensor(mean)[..., None]) / torch.tensor(std)[..., None]
    return model(normed.to(device))


def loss(model: nn.Module, device: str, images: Tensor, masks: Tensor) -> Tensor:
    found = logits(model, device, images)
    return F.cross_entropy(found, masks.to(device), ignore_index=data.IGNORED)


def overlap(model: nn.Module, batches: DataLoader, classes: list[str], device: str) -> dict:
    """Intersection over union of each class, over all pixels, and their mean."""
    count = len(classes)
    pairs = torch.zeros(count, count)  # pixels by true and by found class
    for images, masks in batches:
        found = logits(model, device, images).argmax(1).cpu()
        counted = masks != data.IGNORED
        index = masks[counted] * count + found[counted]
        pairs += torch.bincount(index, minlength=count**2).view(count, count)
    both = pairs.diag()
    scores = both / (pairs.sum(0) + pairs.sum(1) - both)
    there = [i for i in range(count) if not scores[i].isnan()]
    each = {f"IoU {classes[i]}": float(scores[i]) for i in there}
    return {"mIoU": float(scores.nanmean()), **each}


def paint(axes: Axes, mask: Tensor) -> None:
    """Classes but the first, the background, in color."""
    colors = np.array([to_rgba(color, 0.5) for color in training.COLORS])
    drawn = colors[(mask.numpy() - 1) % len(colors)]
    drawn[(mask == 0) | (mask == data.IGNORED)] = 0
    axes.imshow(drawn)


def main(arguments: list[str] | None = None) -> None:
    parser = training.options(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--size", type=int, default=512, help="pixels of an image's sides (%(default)s)")
    add("--channels", type=int, default=256, help="of the decoder's first step (%(default)s)")
    told = training.parse(parser, arguments)
    specs = [hierarch.load(spec) for spec in told.spec]

    classes, scenes = data.read_masks(told.data, told.train, ["train", "train2017"])
    _, held_out = data.read_masks(told.data, told.test, ["test", "val", "val2017"])
    train = data.Masks(scenes, size=told.size, flip=True)
    test = data.Masks(held_out, size=told.size, flip=False)
    print(f"{len(train)} images to train on, {len(test)} held out; {', '.join(classes)}")
    shown = [test[i] for i in training.few(len(test))]
    images = torch.stack([image for image, _ in shown])
    rows, networks = {"truth": [mask for _, mask in shown]}, {}
    for spec in specs:
        torch.manual_seed(told.seed)
        model = unet(spec, len(classes), told).to(told.device)
        networks[spec.name] = training.describe(model, model.encoder.model, told.size)
        networks[spec.name]["epochs"] = training.fit(
            model,
            DataLoader(train, told.batch_size, shuffle=True, drop_last=True),
            partial(loss, model, told.device),
            partial(overlap, model, DataLoader(test, told.batch_size), classes, told.device),
            told,
        )
        training.write(told, networks, "mIoU")
        torch.save(model.state_dict(), told.output / f"{spec.name}.pth")
        with torch.inference_mode():
            rows[spec.name] = logits(model, told.device, images).argmax(1).cpu()
        training.picture(told.output / "predictions.jpg", images, rows, paint, classes[1:])


if __name__ == "__main__":
    training.run(main)
