"""Trained networks, from a run's folder or from a spec and weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.errors import DataError, TrainError
from hierarch.needs import require
from hierarch.report.training import EvaluationReport, Predictions
from hierarch.spec import load as specs
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides
from hierarch.train import recipe as recipes
from hierarch.train.recipe import Recipe, image_size
from hierarch.train.settings import Machine
from hierarch.train.sources import Data, open_data

if TYPE_CHECKING:
    from hierarch.building import Backbone

Source = str | os.PathLike[str] | Mapping[str, Any] | BackboneSpec

DEFAULTS = Recipe(epochs=1)
"""How images are made ready for a network of which no recipe is known: as for ImageNet."""


@dataclass(frozen=True)
class Trained:
    """A network, and what its run says of the images that it takes."""

    model: Backbone
    recipe: Recipe
    classes: tuple[str, ...]
    """Names of the classes; empty where nobody knows them."""
    size: Sides
    data: str | None = None


def open_network(
    source: Source,
    *,
    weights: str | Path | None = None,
    recipe: recipes.Source | None = None,
) -> Trained:
    """The network of a run's folder, or of a spec with `weights`.

    Of a run, the final weights are taken; of one that has not come to its end, those of its best
    evaluation, or of its checkpoint. Raises `TrainError`, `SpecError` or `WeightsError`.
    """
    from hierarch.building import build
    from hierarch.weights.load import load_weights

    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        spec, how, about, found = _run(Path(source))
        weights = weights or found
    else:
        spec, how, about = specs.load(source), DEFAULTS, {}
        if weights is None:
            raise TrainError(f"{spec.name}: is a spec; give its weights with --weights")
    if recipe is not None:
        how = recipes.load_recipe(recipe)
    if spec.head is None or not spec.head.num_classes:
        raise TrainError(f"{spec.name}: has no classifier; set spec.head.num_classes")
    model = build(spec)
    load_weights(model, weights)
    return Trained(
        model=model.eval(),
        recipe=how,
        classes=tuple(about.get("classes", ())),
        size=image_size(spec, how),
        data=about.get("data"),
    )


def _run(path: Path) -> tuple[BackboneSpec, Recipe, dict[str, Any], Path]:
    from hierarch.train.folder import RunFolder

    run = RunFolder(path)
    if not run.begun:
        raise TrainError(f"{path}: is no run's folder; give one, or a spec with --weights")
    kept = [file for file in (run.model, run.best, run.checkpoint) if file.exists()]
    if not kept:
        raise TrainError(f"{path}: has no weights yet; go on with it: hierarch train --resume")
    spec, recipe = specs.load(str(run.spec)), recipes.load_recipe(str(run.recipe))
    return spec, recipe, run.read_about(), kept[0]


def evaluate(
    source: Source,
    data: str | Data | None = None,
    *,
    weights: str | Path | None = None,
    recipe: recipes.Source | None = None,
    sizes: Sequence[Sides] | None = None,
    split: str = "val",
    batch_size: int = 64,
    machine: Machine = Machine(devices="1"),  # noqa: B008  # frozen
    skip_broken: bool = False,
) -> EvaluationReport:
    """How often a network is right: top-1, top-5, by class, and what it takes for what.

    `source` is a run's folder, or a spec with `weights`; `data` is by default what the run was
    trained on, of which the held-out images are taken. `sizes` are image sizes, by default the
    one of training. Raises `DataError` where the data has other classes than the network.

    >>> spec = {
    ...     "name": "digits",
    ...     "input_size": 8,
    ...     "stem": {"type": "patch_embed", "patch_size": 2, "in_chans": 1},
    ...     "mixer": "pooling",
    ...     "stages": [{"dim": 8, "depth": 1}],
    ... }
    >>> recipe = {"epochs": 1, "batch_size": 128, "mean": [0.3], "std": [0.35]}
    >>> cpu = Machine(accelerator="cpu", devices="1")
    >>> from hierarch.train.running import train
    >>> _ = train(spec, "digits", recipe=recipe, run="runs/evaluated", machine=cpu)
    >>> evaluate("runs/evaluated", machine=cpu).sizes[0].images
    360
    """
    require("lightning", "torchvision")
    from hierarch.train.images import Images, evaluation
    from hierarch.train.scoring import score

    network = open_network(source, weights=weights, recipe=recipe)
    name = data if data is not None else network.data
    if name is None:
        raise TrainError("no run says which images these are; give --data")
    images = (open_data(name) if isinstance(name, str) else name).split(split)
    spec = network.model.spec
    assert spec.head is not None
    _same_classes(network, images.classes)
    fabric = machine.fabric(network.recipe.precision, ".", trains=False)
    model = fabric.to_device(network.model)
    if network.recipe.precision == "float64":
        model = model.double()
    in_chans = spec.stem.in_chans
    scores = [
        score(
            model,
            Images(images, evaluation(network.recipe, size, in_chans), in_chans=in_chans),
            size=size,
            classes=spec.head.num_classes,
            batch_size=max(1, batch_size // fabric.world_size),
            fabric=fabric,
            workers=machine.workers,
            skip_broken=skip_broken,
        )
        for size in sizes or [network.size]
    ]
    return EvaluationReport(
        name=spec.name,
        data=f"{name if isinstance(name, str) else name.name} ({split})",
        classes=images.classes,
        sizes=tuple(scores),
    )


def _same_classes(network: Trained, classes: tuple[str, ...]) -> None:
    head = network.model.spec.head
    assert head is not None
    if len(classes) != head.num_classes:
        raise DataError(
            f"the data has {len(classes)} classes, and {network.model.spec.name} {head.num_classes}"
        )
    if network.classes and network.classes != classes:
        pairs = zip(network.classes, classes, strict=True)
        ours, theirs = next((a, b) for a, b in pairs if a != b)
        raise DataError(
            f"the data has other classes than the run: {theirs!r} stands in the place of {ours!r}"
        )


def predict(
    source: Source,
    images: Sequence[str | os.PathLike[str]],
    *,
    weights: str | Path | None = None,
    recipe: recipes.Source | None = None,
    top: int = 5,
    batch_size: int = 64,
    machine: Machine = Machine(devices="1"),  # noqa: B008  # frozen
) -> Predictions:
    """The likeliest classes of image files, with their probabilities.

    A folder stands for the images in it. Raises `DataError` for what cannot be read.

    >>> spec = {
    ...     "name": "digits",
    ...     "input_size": 8,
    ...     "stem": {"type": "patch_embed", "patch_size": 2, "in_chans": 1},
    ...     "mixer": "pooling",
    ...     "stages": [{"dim": 8, "depth": 1}],
    ... }
    >>> recipe = {"epochs": 1, "batch_size": 128, "mean": [0.3], "std": [0.35]}
    >>> cpu = Machine(accelerator="cpu", devices="1")
    >>> from hierarch.train.running import train
    >>> _ = train(spec, "digits", recipe=recipe, run="runs/predicted", machine=cpu)
    >>> from PIL import Image
    >>> Image.new("L", (8, 8), 100).save("digit.png")
    >>> [(name, classes)] = predict("runs/predicted", ["digit.png"], top=3, machine=cpu).images
    >>> name, len(classes)
    ('digit.png', 3)
    """
    require("lightning", "torchvision")
    import torch

    from hierarch.train.images import evaluation
    from hierarch.train.reading import read_image

    network = open_network(source, weights=weights, recipe=recipe)
    fabric = machine.fabric(network.recipe.precision, ".", trains=False)
    spec = network.model.spec
    assert spec.head is not None
    files = image_files(images)
    transform = evaluation(network.recipe, network.size, spec.stem.in_chans)
    model = fabric.to_device(network.model)
    if network.recipe.precision == "float64":
        model = model.double()
    dtype = next(model.parameters()).dtype
    names = network.classes or tuple(str(i) for i in range(spec.head.num_classes))
    found = []
    for at in range(0, len(files), batch_size):
        part = files[at : at + batch_size]
        batch = torch.stack([transform(read_image(file, spec.stem.in_chans)) for file in part])
        with torch.inference_mode(), fabric.autocast():
            shares = model(batch.to(fabric.device, dtype)).double().softmax(-1)
        values, indices = shares.topk(min(top, len(names)))
        for file, likely, which in zip(part, values.tolist(), indices.tolist(), strict=True):
            pairs = tuple((names[i], share) for i, share in zip(which, likely, strict=True))
            found.append((str(file), pairs))
    return Predictions(tuple(found))


def image_files(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Image files, where a folder stands for those in it. Raises `DataError` for one without."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
            if not inside:
                raise DataError(f"{source}: has no images in it")
            found += inside
        else:
            found.append(source)
    return found
