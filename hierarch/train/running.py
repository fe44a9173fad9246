"""`train`: one network on one set of images by one recipe, in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.errors import TrainError
from hierarch.needs import require
from hierarch.report.training import SizeAccuracy, TrainReport
from hierarch.spec import load as specs
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.load import flow, to_yaml, with_classes
from hierarch.train import recipe as recipes
from hierarch.train.recipe import Recipe, image_size
from hierarch.train.settings import Machine
from hierarch.train.sources import Data, open_data
from hierarch.train.surroundings import surroundings

if TYPE_CHECKING:
    from torch import nn

    from hierarch.train.folder import RunFolder
    from hierarch.train.progress import Progress


def train(
    spec: specs.Source,
    data: str | Data,
    *,
    recipe: recipes.Source,
    run: str | Path,
    weights: str | Path | None = None,
    resume: bool = False,
    machine: Machine = Machine(),  # noqa: B008  # frozen
    skip_broken: bool = False,
    command: Sequence[str] = (),
    advance: Callable[[Progress], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> TrainReport:
    """Train a network, and return the final figures; everything else is in the folder `run`.

    `data` is what `open_data` reads, or its result. The classifier gets as many classes as the data
    has. `weights`, a checkpoint of any layout, are where the network starts from, by default as
    published. `resume` goes on with a run that was stopped: the result is what it would have been
    without the stop, bit for bit on a CPU. `skip_broken` takes another image in place of one that
    cannot be read. `note` is told what a person should know.

    Raises `TrainError`, `DataError`, `SpecError` or `WeightsError`.

    >>> spec = {
    ...     "name": "digits",
    ...     "input_size": 8,
    ...     "stem": {"type": "patch_embed", "patch_size": 2, "in_chans": 1},
    ...     "mixer": "pooling",
    ...     "stages": [{"dim": 8, "depth": 1}],
    ... }
    >>> recipe = {"epochs": 1, "batch_size": 128, "mean": [0.3], "std": [0.35]}
    >>> cpu = Machine(accelerator="cpu", devices="1")
    >>> report = train(spec, "digits", recipe=recipe, run="runs/first", machine=cpu)
    >>> report.steps, report.epochs
    (11, 1)
    """
    require("lightning", "torchvision")
    from hierarch.train.folder import RunFolder
    from hierarch.train.loggers import logged

    how = recipes.load_recipe(recipe)
    images = open_data(data) if isinstance(data, str) else data
    given = specs.load(spec)
    network = with_classes(given, len(images.train.classes))
    fabric = machine.fabric(how.precision, str(run))
    first = fabric.is_global_zero
    say = note if note and first else _ignore
    if network != given:
        say(f"{given.name}: the classifier has {len(images.train.classes)} classes, as the data")
    if images.held_out is None:
        say(f"{images.name}: no held-out images (a folder val or test), so nothing is evaluated")
    folder = RunFolder(run)
    with ExitStack() as stack:
        problem, finished = "", False
        if first:
            try:
                stack.enter_context(folder.locked())
                finished = folder.results.exists() and resume
                _begin(folder, network, how, images, resume=resume, command=command)
                if not finished:
                    stack.enter_context(logged(fabric.loggers))
            except TrainError as error:
                problem = str(error)
        # a process that stopped alone would leave the others waiting for it
        problem, finished = fabric.broadcast((problem, finished))
        if problem:
            raise TrainError(problem)
        if finished:
            say(f"{folder.path}: is finished already")
            return TrainReport(**_results(folder))
        return _trained(
            fabric,
            folder,
            network,
            how,
            images,
            weights,
            machine,
            skip_broken,
            advance if first else None,
        )


def is_first_process() -> bool:
    """Whether this is the one process of a run that prints, of which there may be several."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def _ignore(_: str) -> None:
    pass


def _begin(
    folder: RunFolder,
    spec: BackboneSpec,
    recipe: Recipe,
    data: Data,
    *,
    resume: bool,
    command: Sequence[str],
) -> None:
    """Write what the run is, or see that it is the one that goes on. Raises `TrainError`."""
    from hierarch.train.folder import leftovers

    if folder.checkpoint.exists() or folder.results.exists():
        if not resume:
            raise TrainError(
                f"{folder.path}: holds a run already; give --resume to go on with it, or another "
                "--run"
            )
        check_same(folder, spec, recipe, data)
        return
    if foreign := leftovers(folder.path):
        raise TrainError(
            f"{folder.path}: holds {foreign[0].name}, which is no run's; give another --run"
        )
    about = {
        "command": list(command),
        "data": data.name,
        "images": len(data.train),
        "held_out_images": len(data.held_out) if data.held_out else 0,
        "classes": list(data.train.classes),
        "seed": recipe.seed,
        **surroundings(),
    }
    recipe_text = to_yaml(flow(recipe.to_data()))
    folder.begin(spec=specs.dump(spec), recipe=recipe_text, about=about)


def check_same(folder: RunFolder, spec: BackboneSpec, recipe: Recipe, data: Data) -> None:
    """Raise `TrainError` where a run was begun with another spec, recipe or set of images."""
    about = folder.read_about()
    begun = {
        "spec": specs.load(folder.spec),
        "recipe": recipes.load_recipe(folder.recipe),
        "data": (about["images"], tuple(about["classes"])),
    }
    given = {"spec": spec, "recipe": recipe, "data": (len(data.train), data.train.classes)}
    for what, value in given.items():
        if value != begun[what]:
            raise TrainError(
                f"{folder.path}: its {what} differs from that of this command; give another --run, "
                "or the one that the run began with"
            )


def _trained(
    fabric: Any,
    folder: RunFolder,
    spec: BackboneSpec,
    recipe: Recipe,
    data: Data,
    weights: str | Path | None,
    machine: Machine,
    skip_broken: bool,
    advance: Callable[[Progress], None] | None,
) -> TrainReport:
    """Build the network and its loop, run it from where the folder is, and write the results."""
    import torch

    from hierarch.building import build
    from hierarch.train.images import Images, Substituting, training
    from hierarch.train.init import draw_by_fan_in
    from hierarch.train.loop import Loop
    from hierarch.train.order import Plan, seed_of
    from hierarch.weights.load import load_weights

    plan = Plan(
        seed=recipe.seed,
        length=len(data.train),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        parts=recipe.accumulate,
        processes=fabric.world_size,
    )
    torch.manual_seed(seed_of(recipe.seed, "weights"))
    model = build(spec)
    if recipe.init == "fan_in":
        draw_by_fan_in(model)
    state = folder.load()
    if weights is not None and state is None:
        load_weights(model, weights, new_head=True)
    size, in_chans = image_size(spec, recipe), spec.stem.in_chans
    identity = {"number of processes": fabric.world_size}
    loop = Loop(model, recipe, plan, fabric=fabric, folder=folder, identity=identity)
    if state is not None:
        loop.restore(state)
    if fabric.is_global_zero:
        folder.rewind(loop.counts.step)
    kind = Substituting if skip_broken else Images
    images = kind(data.train, training(recipe, size, in_chans), in_chans=in_chans, seed=recipe.seed)
    scorer = _scorer(fabric, spec, recipe, data, machine, skip_broken)
    counts = loop.run(
        images,
        evaluate=scorer if data.held_out else None,
        workers=machine.workers,
        advance=advance,
    )
    report = TrainReport(
        name=spec.name,
        run=str(folder.path),
        steps=counts.step,
        epochs=recipe.epochs,
        loss=counts.loss,
        best_top1=counts.best_top1,
        best_step=counts.best_step,
        broken=counts.broken,
        **counts.last,
    )
    with loop.evaluated():
        loop.keep(folder.model)
    if fabric.is_global_zero:
        folder.finish(report.to_data())
    fabric.barrier()
    return report


def _scorer(
    fabric: Any,
    spec: BackboneSpec,
    recipe: Recipe,
    data: Data,
    machine: Machine,
    skip_broken: bool,
) -> Callable[[nn.Module], SizeAccuracy]:
    """A function that evaluates a network on the held-out images."""
    from hierarch.train.images import Images, evaluation
    from hierarch.train.scoring import score

    size, in_chans = image_size(spec, recipe), spec.stem.in_chans
    batch_size = recipe.evaluate.batch_size or recipe.batch_size // recipe.accumulate

    def evaluate(network: nn.Module) -> SizeAccuracy:
        assert data.held_out is not None
        return score(
            network,
            Images(data.held_out, evaluation(recipe, size, in_chans), in_chans=in_chans),
            size=size,
            classes=len(data.train.classes),
            batch_size=max(1, batch_size // fabric.world_size),
            fabric=fabric,
            workers=machine.workers,
            skip_broken=skip_broken,
        )

    return evaluate


def _results(folder: RunFolder) -> dict[str, Any]:
    import json

    results: dict[str, Any] = json.loads(folder.results.read_text("utf-8"))
    return results
