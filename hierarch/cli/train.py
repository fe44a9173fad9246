"""`hierarch train`: networks trained by a recipe, on whatever machine there is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierarch.cli import completion
from hierarch.cli.common import Format, format_option, read_spec, specs_argument, write
from hierarch.cli.progress import progress
from hierarch.errors import TrainError

if TYPE_CHECKING:
    from hierarch.train.progress import Progress

data_option = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="An image folder, a folder of tar shards or of idx files, an .npz file, digits, or a "
        "dataset of torchvision such as cifar10 or fashion-mnist.",
    ),
]
root_option = Annotated[
    Path, typer.Option("--data-root", help="Where datasets of torchvision are kept.")
]
download_option = Annotated[
    bool, typer.Option("--download", help="Download the dataset if it is not there.")
]
workers_option = Annotated[
    int, typer.Option("--workers", help="Processes that prepare images; 0 for none.")
]
skip_option = Annotated[
    bool, typer.Option("--skip-broken", help="Go on at images that cannot be read; count them.")
]
accelerator_option = Annotated[
    str, typer.Option("--accelerator", help="cpu, gpu, ..., as Lightning Fabric names them.")
]


def train(
    specs: specs_argument,
    data: data_option,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="A YAML file, or a recipe's name, such as imagenet_300.",
            autocompletion=completion.recipes,
        ),
    ] = "small_images",
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run's folder; of several specs, that of their folders."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A checkpoint to start from, of any layout.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Set a value in the recipe: optimizer.lr=5e-4; or in the spec: "
            "spec.drop_path_rate=0. Repeatable.",
            autocompletion=completion.recipe_assignments,
        ),
    ] = None,
    data_root: root_option = Path("data"),
    download: download_option = False,
    skip_broken: skip_option = False,
    workers: workers_option = 0,
    accelerator: accelerator_option = "auto",
    devices: Annotated[str, typer.Option("--devices", help="How many, or which: 2, or 0,1.")] = (
        "auto"
    ),
    nodes: Annotated[int, typer.Option("--nodes", help="Machines, under torchrun or SLURM.")] = 1,
    strategy: Annotated[str, typer.Option("--strategy", help="auto, ddp or fsdp2.")] = "auto",
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help="tensorboard, wandb or mlflow, beside metrics.csv. Repeatable."),
    ] = None,
    format: format_option = Format.table,
) -> None:
    """Train networks by a recipe, each in a folder with its spec, recipe, metrics and weights.

    The same command with --resume goes on after a stop at any moment; on a CPU the final weights
    are the same, bit for bit.

    Example: hierarch train swin_tiny --data cifar10 --recipe smoke --run runs/first
    """
    from hierarch.needs import require
    from hierarch.report.training import TrainReports
    from hierarch.spec.overrides import parse_assignment
    from hierarch.train.recipe import load_recipe

    ours = [text for text in set or () if not text.startswith("spec.")]
    theirs = [text.removeprefix("spec.") for text in set or () if text.startswith("spec.")]
    how = load_recipe(recipe, assignments=map(parse_assignment, ours))
    networks = [read_spec(source, theirs) for source in specs]
    names = [network.name for network in networks]
    if len(names) > len({*names}):
        raise TrainError(f"two specs have the same name ({', '.join(names)}), so the same folder")
    require("lightning", "torchvision")
    from hierarch.train.running import is_first_process
    from hierarch.train.running import train as run_one
    from hierarch.train.settings import Machine
    from hierarch.train.sources import open_data

    machine = Machine(
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
        strategy=strategy,
        workers=workers,
        loggers=log or (),
    )
    # torchvision prints, and stdout is the result's
    with redirect_stdout(sys.stderr):
        images = open_data(data, root=data_root, download=download)
    reports = []
    for network in networks:
        if run is None:
            folder = Path("runs") / f"{network.name}-{how.name}"
        else:
            folder = run / network.name if len(networks) > 1 else run
        with progress(network.name) as draw, redirect_stdout(sys.stderr):

            def advance(at: Progress, draw: Callable[..., None] = draw) -> None:
                text = f"epoch {at.epoch}  loss {at.loss:.3f}  {at.images_per_s:.0f} images/s"
                draw(at.step, at.steps, text)

            report = run_one(
                network,
                images,
                recipe=how,
                run=folder,
                weights=weights,
                resume=resume,
                machine=machine,
                skip_broken=skip_broken,
                command=["hierarch", *sys.argv[1:]],
                advance=advance,
                note=lambda text: typer.echo(text, err=True),
            )
        reports.append(report)
    if is_first_process():
        write(TrainReports(tuple(reports)), format)
