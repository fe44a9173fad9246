"""`hierarch compare`: specs side by side, each number with its difference to the first spec's."""

from __future__ import annotations

from typing import Annotated

import typer

from hierarch.cli.common import (
    Format,
    format_option,
    read_spec,
    set_option,
    sizes,
    specs_argument,
    write,
)
from hierarch.cli.progress import progress


def compare(
    specs: specs_argument,
    at: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            help="Image sizes: 224,448,896x1120 (height x width). The first spec's and twice that, "
            "if not given.",
        ),
    ] = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Time them, too: images a second and peak memory.")
    ] = False,
    rounds: Annotated[
        int, typer.Option("--rounds", help="With --bench: timed calls of each.")
    ] = 10,
    threads: Annotated[
        int | None,
        typer.Option("--threads", help="With --bench: torch's number, if not given."),
    ] = None,
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Compare specs with the first of them: parameters, MACs, activations, verdict, and in words.

    Each number stands with its difference to the first spec's. The words say what is in which
    stage of a spec for what is in the first.

    Example: hierarch compare swin_tiny ablations/swin_tiny_pooling --sizes 224,448
    """
    from hierarch.comparing import compare as compared

    read = [read_spec(source, set) for source in specs]
    with progress("comparing") as advance:
        report = compared(
            read,
            None if at is None else sizes(at, axes=read[0].axes),
            bench=bench,
            rounds=rounds,
            threads=threads,
            advance=advance,
        )
    write(report, format)
