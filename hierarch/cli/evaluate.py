"""`hierarch evaluate` and `hierarch predict`: what a trained network is worth, and what it says."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from hierarch.cli import completion
from hierarch.cli.common import Format, format_option, read_spec, set_option, sizes, write
from hierarch.cli.train import (
    accelerator_option,
    download_option,
    root_option,
    skip_option,
    workers_option,
)
from hierarch.errors import SpecError

network_argument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|SPEC",
        help="A run's folder, or a spec with --weights.",
        autocompletion=completion.specs,
    ),
]
weights_option = Annotated[
    Path | None, typer.Option("--weights", help="A checkpoint, of any layout.")
]
recipe_option = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="How images are made ready; the run's, or ImageNet's.",
        autocompletion=completion.recipes,
    ),
]


def evaluate(
    network: network_argument,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="SOURCE", help="As for train; by default the run's."),
    ] = None,
    weights: weights_option = None,
    at: Annotated[
        str | None, typer.Option("--sizes", help="Image sizes: 224,448. That of training.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="val, or train.")] = "val",
    recipe: recipe_option = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a step.")] = 64,
    data_root: root_option = Path("data"),
    download: download_option = False,
    skip_broken: skip_option = False,
    workers: workers_option = 0,
    accelerator: accelerator_option = "auto",
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Evaluate a network on labelled images: top-1, top-5, by class, and what it takes for what.

    Example: hierarch evaluate runs/first --sizes 224,256
    """
    if split not in ("train", "val"):
        raise SpecError(f"--split {split[:80]!r}: should be train or val")
    wanted = sizes(at) if at is not None else None
    source = _source(network, set)
    from hierarch.needs import require

    require("lightning", "torchvision")
    from hierarch.train.networks import evaluate as run
    from hierarch.train.settings import Machine
    from hierarch.train.sources import open_data

    with redirect_stdout(sys.stderr):
        images = open_data(data, root=data_root, download=download) if data is not None else None
        report = run(
            source,
            images,
            weights=weights,
            recipe=recipe,
            sizes=wanted,
            split=split,
            batch_size=batch,
            machine=Machine(accelerator=accelerator, devices="1", workers=workers),
            skip_broken=skip_broken,
        )
    write(report, format)


def predict(
    network: network_argument,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    weights: weights_option = None,
    recipe: recipe_option = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes shown of each.")] = 5,
    accelerator: accelerator_option = "auto",
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Say which classes images are likeliest to be of.

    Example: hierarch predict runs/first cat.jpg --top 3
    """
    source = _source(network, set)
    from hierarch.needs import require

    require("lightning", "torchvision")
    from hierarch.train.networks import predict as run
    from hierarch.train.settings import Machine

    machine = Machine(accelerator=accelerator, devices="1")
    with redirect_stdout(sys.stderr):
        found = run(source, images, weights=weights, recipe=recipe, top=top, machine=machine)
    write(found, format)


def _source(network: str, assignments: list[str] | None) -> Any:
    """A run's folder as it is; a spec with its assignments."""
    if not Path(network).is_dir():
        return read_spec(network, assignments)
    if assignments:
        raise SpecError("--set changes a spec; a run has its own")
    return network
