"""`hierarch flops`: the cost of networks at each image size, and whether it is linear."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from enum import StrEnum
from itertools import count
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


class By(StrEnum):
    stage = "stage"
    part = "part"
    operator = "operator"
    module = "module"


def flops(
    specs: specs_argument,
    at: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            help="Image sizes: 224,448,896x1120 (height x width), or 16x224x224 of videos.",
        ),
    ] = None,
    by: Annotated[By, typer.Option("--by", help="Breakdown of the cost.")] = By.stage,
    format: format_option = Format.table,
    assert_linear: Annotated[
        bool,
        typer.Option(
            "--assert-linear",
            help="Exit with status 1 if a spec is not linear. A peer never fails.",
        ),
    ] = False,
    vs: Annotated[
        list[str] | None,
        typer.Option(
            "--vs",
            metavar="LIBRARY:MODEL",
            help="A network of another library to count beside them: timm:MODEL, torchvision:MODEL "
            "or transformers:MODEL_TYPE. Never downloads. Repeatable.",
        ),
    ] = None,
    set: set_option = None,
) -> None:
    """Count the cost of networks at each image size, and decide whether it is linear in the area.

    The parts' formulas and fvcore's count must agree. Default sizes: four, from the smallest at
    which nothing is padded, each with 4 times the area of the one before. Peers start at their
    nominal size, and are broken down by top-level child.

    Example: hierarch flops swin_tiny swin_mixer_tiny_d24 --sizes 256,512,1024
    """
    from hierarch.complexity import default_sizes, measure, measure_peer
    from hierarch.complexity.peers import DOUBLINGS
    from hierarch.report import FlopsReport

    loaded = [read_spec(source, set) for source in specs]
    sweeps = [sizes(at, axes=s.axes) if at is not None else default_sizes(s) for s in loaded]
    wanted = sizes(at) if vs and at is not None else None
    named = list(dict.fromkeys(vs or ()))
    total = sum(map(len, sweeps)) + len(named) * len(wanted or DOUBLINGS)
    done = count(1)
    with progress("counting") as advance:

        def step() -> None:
            advance(next(done), total)

        peers = [measure_peer(name, wanted, advance=step) for name in named]
        reports = [
            measure(spec, sweep, advance=step) for spec, sweep in zip(loaded, sweeps, strict=True)
        ]
    names = Counter(report.name for report in reports)
    reports = [
        replace(report, name=f"{report.name} ({source})") if names[report.name] > 1 else report
        for report, source in zip(reports, specs, strict=True)
    ]
    write(FlopsReport(tuple(reports), tuple(peers), by=by.value), format)
    if assert_linear:
        nonlinear = [report for report in reports if report.verdict != "linear"]
        for report in nonlinear:
            typer.echo(f"{report.name} is {report.verdict}: {report.why}", err=True)
        if nonlinear:
            raise typer.Exit(1)
