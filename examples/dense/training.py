"""Options, the loop, and what is written: the same for detection and segmentation."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader

import hierarch
from hierarch.bench.machine import processor
from hierarch.errors import HierarchError
from hierarch.train.init import draw_by_fan_in

COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#f0e442")
"""Okabe and Ito's, for the classes in turn."""


def options(description: str) -> argparse.ArgumentParser:
    """The options that both examples have."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder in VOC's or COCO's layout, or with masks")
    add("--train", help="split to train on: the name of a list in ImageSets, or of a folder")
    add("--test", help="split to evaluate on")
    add("--spec", nargs="+", required=True, help="presets or YAML files, each trained")
    add("--weights", help="checkpoint of the backbone; without one, it is trained from scratch")
    add("--frozen-stages", type=int, default=-1, help="0 freezes the stem, n also n stages")
    add("--epochs", type=int, default=20, help="times that each image is seen (%(default)s)")
    add("--batch-size", type=int, default=4, help="images of a step (%(default)s)")
    add("--lr", type=float, default=1e-3, help="highest learning rate of AdamW (%(default)s)")
    add("--every", type=int, default=5, help="epochs between evaluations (%(default)s)")
    add("--seed", type=int, default=0, help="of weights, order and flips (%(default)s)")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="torch's name of the device (%(default)s)")
    add("--output", type=Path, default="output", help="folder of what is written (%(default)s)")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command line, which is printed."""
    told = parser.parse_args(arguments)
    print(f"$ python examples/{parser.prog}", *(sys.argv[1:] if arguments is None else arguments))
    return told


def run(main: Callable[[], None]) -> None:
    """Runs a script; a mistake of the user is one line."""
    try:
        main()
    except (HierarchError, OSError) as error:
        sys.exit(f"error: {error}")


def start(body: hierarch.Backbone, weights: str | None) -> None:
    """Load a backbone's weights, or draw them for training from scratch."""
    if weights:
        hierarch.load_weights(body, weights)
    else:
        draw_by_fan_in(body)


def describe(model: nn.Module, body: hierarch.Backbone, size: int) -> dict[str, Any]:
    """What a network is and costs: its parameters, and its backbone's, with the multiply-adds for
    an image of size x size."""
    cost = hierarch.measure(body.spec, sizes=[size])
    found = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "backbone_parameters": sum(weight.numel() for weight in body.parameters()),
        "backbone_gmacs": round(cost.sizes[0].macs / 1e9, 3),
    }
    print("  ".join([body.spec.name, *(f"{key} {value:,}" for key, value in found.items())]))
    return found


def fit(
    model: nn.Module,
    batches: DataLoader,
    loss_of: Callable[[Any, Any], Tensor],
    evaluate: Callable[[], dict[str, float]],
    told: argparse.Namespace,
) -> list[dict[str, float]]:
    """Train a model, and return a row for each epoch: the mean loss, and now and then a score."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1]},
        {"params": [weight for weight in weights if weight.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=told.lr, weight_decay=0.05)
    steps = told.epochs * len(batches)
    if not steps:
        raise HierarchError(
            f"there is no batch of {told.batch_size} images: --batch-size, --epochs"
        )
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * step / steps)) / 2),
    )
    rows, began, quiet = [], time.monotonic(), not sys.stdout.isatty()
    for epoch in range(1, told.epochs + 1):
        model.train()
        losses = []
        label = f"epoch {epoch}/{told.epochs}"
        for images, targets in track(batches, label, transient=True, disable=quiet):
            loss = loss_of(images, targets)
            if not loss.isfinite():
                raise HierarchError(f"the loss is {loss:.3g} in epoch {epoch}; try a lower --lr")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 5.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        row = {"epoch": epoch, "loss": sum(losses) / len(losses)}
        if epoch % told.every == 0 or epoch == told.epochs:
            model.eval()
            with torch.inference_mode():
                row |= evaluate()
        rows.append(row | {"seconds": round(time.monotonic() - began, 1)})
        print("  ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()), flush=True)
    return rows


def few(count: int) -> range:
    """Up to four of so many images, far from each other."""
    return range(0, count, -(-count // 4))


def write(told: argparse.Namespace, networks: dict[str, Any], score: str) -> None:
    """results.json, and curve.svg with the loss and one score over the epochs."""
    options = {key: value for key, value in vars(told).items() if key not in ("data", "output")}
    results = {
        "data": told.data.name,
        "options": options,
        "machine": f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "networks": networks,
    }
    told.output.mkdir(parents=True, exist_ok=True)
    (told.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("loss", score), strict=True):
        for name, network in networks.items():
            rows = [row for row in network["epochs"] if key in row]
            axes.plot([row["epoch"] for row in rows], [row[key] for row in rows], ".-", label=name)
        axes.set(xlabel="epoch", ylabel=key)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(told.output / "curve.svg", metadata={"Date": None})


def picture(
    path: Path,
    images: Sequence[Tensor],
    rows: dict[str, Sequence[Any]],
    paint: Callable[[Axes, Any], None],
    names: Sequence[str],
) -> None:
    """The same images (3, H, W) in each row, where `paint` adds what the row has for each; below
    them the names of classes in `COLORS`."""
    figure = Figure(figsize=(3 * len(images), 2.5 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(images), squeeze=False)
    for (name, found), line in zip(rows.items(), grid, strict=True):
        line[0].set_ylabel(name)
        for image, one, axes in zip(images, found, line, strict=True):
            axes.imshow(image.permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[], autoscale_on=False)
            paint(axes, one)
    for name, color in zip(names, cycle(COLORS), strict=False):
        grid[0][0].plot([], [], color=color, label=name)
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=80, pil_kwargs={"quality": 80})
