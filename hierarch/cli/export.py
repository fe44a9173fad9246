"""`hierarch export`: a network as a file of another runtime, compared with torch there."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierarch.cli import completion
from hierarch.cli.common import Format, format_option, read_spec, set_option, sizes, write
from hierarch.errors import ExportError, SpecError
from hierarch.exporting.registry import target_names

if TYPE_CHECKING:
    from hierarch.building import Backbone
    from hierarch.spec.grid import Sides
    from hierarch.train.recipe import Recipe


class Dynamic(StrEnum):
    """The keys of `hierarch.exporting.export.DYNAMIC`, repeated so that --help is fast."""

    none = "none"
    batch = "batch"
    size = "size"
    all = "all"


def export(
    network: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SPEC",
            help="A run's folder, or a spec.",
            autocompletion=completion.specs,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="PATH", help="The file: .onnx, .xml, .pt2 or .pte."),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", help=f"{', '.join(target_names())}.", autocompletion=completion.targets
        ),
    ] = "onnx",
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A checkpoint, of any layout.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="Image size: 224 or 896x1120. That of training."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a call.")] = 1,
    dynamic: Annotated[
        Dynamic, typer.Option("--dynamic", help="What one file serves any of.")
    ] = Dynamic.none,
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, float16, bfloat16 or int8.")
    ] = "float32",
    features: Annotated[
        bool, typer.Option("--features", help="Return the maps of all stages, rather than logits.")
    ] = False,
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            metavar="SOURCE",
            help="Images to compare on, and to calibrate int8 with: a folder, or as for train.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--max-images", min=1, help="Images that are taken, at most.")
    ] = 256,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="What is tolerated; by default 1e-4 in float32."),
    ] = None,
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Export a network: write its file, run that in its runtime, and compare it with torch.

    The file takes images in float32, normed as for training, and keeps the spec, the classes, mean
    and deviation. Exit status 1, and no file, if it computes something else than torch.

    Example: hierarch export swin_tiny --weights swin_tiny.pth --dynamic batch -o swin_tiny.onnx
    """
    model, recipe, classes, trained_at = _network(network, weights, set)
    at = _one(size, model.spec.axes) if size is not None else trained_at
    from hierarch.exporting.export import export as run

    mean, std = recipe.norm(model.spec.stem.in_chans)
    options: dict[str, Any] = {"mean": mean, "std": std, "classes": classes}
    with redirect_stdout(sys.stderr):
        if images is not None:
            options |= _images(images, recipe, model, at, count, classes)
        try:
            report = run(
                model,
                output,
                to=to,
                size=at,
                batch=batch,
                dynamic=dynamic.value,
                dtype=dtype,
                features=features,
                tolerance=tolerance,
                **options,
            )
        except ExportError as error:
            if error.report is None:
                raise
            report = error.report
    write(report, format)
    if not report.holds:
        typer.echo(f"{report.verdict}; nothing is written", err=True)
        raise typer.Exit(1)


def _one(text: str, axes: int) -> Sides:
    parsed = sizes(text, "--size", axes=axes)
    if len(parsed) > 1:
        raise SpecError(f"--size {text[:80]!r}: give one; --dynamic size serves any")
    return parsed[0]


def _network(
    source: str, weights: Path | None, assignments: list[str] | None
) -> tuple[Backbone, Recipe, tuple[str, ...], Sides]:
    """The network, how its images are made ready, its classes' names, and the size of images."""
    from hierarch.building import build
    from hierarch.train.networks import DEFAULTS, open_network
    from hierarch.weights.load import load_weights

    if Path(source).is_dir():
        if assignments:
            raise SpecError("--set changes a spec; a run has its own")
        trained = open_network(source, weights=weights)
        return trained.model, trained.recipe, trained.classes, trained.size
    model = build(read_spec(source, assignments)).eval()
    if weights is not None:
        load_weights(model, weights)
    else:
        typer.echo(f"{model.spec.name}: weights are random; --weights loads some", err=True)
    return model, DEFAULTS, (), model.spec.size


def _images(
    source: str,
    recipe: Recipe,
    model: Backbone,
    size: Sides,
    count: int,
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """The images, and their labels if they are of the network's classes."""
    from hierarch.train.sample import sample

    in_chans, head = model.spec.stem.in_chans, model.spec.head
    made, labels, names = sample(source, recipe, size=size, in_chans=in_chans, count=count)
    same = classes == names if classes else head is not None and len(names) == head.num_classes
    if labels is not None and not same:
        typer.echo("the images have other classes than the network: no accuracy", err=True)
    return {"images": made, "labels": labels if same else None, "classes": classes or names * same}
