"""`hierarch plot`: a picture of networks, and in words what it shows."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hierarch.cli.common import numbers, read_spec, set_option, sizes, specs_argument
from hierarch.errors import PlotError
from hierarch.plots import KINDS


def plot(
    specs: specs_argument,
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help=f"What to draw, last: {', '.join(KINDS)}.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The file: .png, .svg or .pdf.")
    ],
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            help="Image size: 224 or 896x1120 (height x width), or a number for each axis. "
            "For cost, several: 224,448.",
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", help="The stage, from 0. For some kinds several: 0,2.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="A picture. Repeatable where a kind takes several."),
    ] = None,
    pixel: Annotated[
        str | None, typer.Option("--pixel", help="A pixel of the picture: 100,60 (row, column).")
    ] = None,
    weights: Annotated[
        list[Path] | None, typer.Option("--weights", help="A checkpoint, of any layout.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of random weights and images.")
    ] = None,
    set: set_option = None,
) -> None:
    """Draw networks: what they cost, how they cut an image into windows, what they look at.

    KIND comes last, after one spec or several. The caption of the picture is also printed. An
    option that a kind does not take is an error.

    Example: hierarch plot swin_tiny windows -o windows.png
    """
    from hierarch.plots import drawer
    from hierarch.plots.style import caption_of, checked_suffix, save

    if kind not in KINDS and specs[0] in KINDS:
        right = " ".join([*specs[1:], kind, specs[0]])
        raise PlotError(f"the kind comes last: hierarch plot {right}")
    draw = drawer(kind)
    checked_suffix(output)
    read = [read_spec(source, set) for source in specs]
    options = _options(
        draw,
        kind,
        {
            "size": None if size is None else sizes(size, "--size", axes=read[0].axes),
            "stage": None if stage is None else numbers(stage, "--stage"),
            "image": image,
            "pixel": None if pixel is None else [_pixel(pixel)],
            "weights": weights,
            "seed": None if seed is None else [seed],
        },
    )
    if len(specs) > 1 and not _takes_several(draw):
        raise PlotError(f"{kind} is of one spec, got {len(specs)}: {', '.join(specs)}")
    figure = draw(*read, **options)
    save(figure, output)
    typer.echo(caption_of(figure))


def _options(
    draw: Callable[..., Any], kind: str, given: Mapping[str, Sequence[Any] | None]
) -> dict[str, Any]:
    """The keywords of a kind's function: the values of an option go to the parameter of its name,
    which takes one, or of its name in the plural."""
    known = inspect.signature(draw).parameters
    takes = {name for option in given for name in (option, f"{option}s")} & known.keys()
    shown = {option: f"--{option}" for option in given if {option, f"{option}s"} & takes}
    keywords: dict[str, Any] = {}
    for option, values in given.items():
        if not values:
            continue
        if option not in shown:
            raise PlotError(
                f"{kind} has no --{option}; it has {', '.join(shown.values()) or 'none'}"
            )
        if option not in takes:
            keywords[f"{option}s"] = values
        elif len(values) == 1:
            keywords[option] = values[0]
        else:
            raise PlotError(f"{kind} takes one --{option}, got {len(values)}")
    for name in takes - keywords.keys():
        if known[name].default is inspect.Parameter.empty:
            raise PlotError(f"{kind} needs --{name}")
    return keywords


def _takes_several(draw: Callable[..., Any]) -> bool:
    parameters = inspect.signature(draw).parameters.values()
    return any(one.kind is one.VAR_POSITIONAL for one in parameters)


def _pixel(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6}),(\d{1,6})", text)
    if not found:
        raise PlotError(f"--pixel {text[:80]!r}: write it as 100,60 (row, column)")
    return int(found[1]), int(found[2])
