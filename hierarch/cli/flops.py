"""`hierarch flops`: what networks cost at each image size, and whether that is linear."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hierarch.cli.common import (
    Format,
    format_option,
    is_terminal,
    read_spec,
    set_option,
    show,
    sizes,
    specs_argument,
    write_csv,
    write_json,
)

if TYPE_CHECKING:
    from hierarch.report import PeerReport, Report


class By(StrEnum):
    stage = "stage"
    part = "part"
    operator = "operator"
    module = "module"


def flops(
    specs: specs_argument,
    at: Annotated[
        str | None,
        typer.Option("--sizes", help="Image sizes: 224,448,896x1120 (height x width)."),
    ] = None,
    by: Annotated[By, typer.Option("--by", help="What the cost is broken down by.")] = By.stage,
    format: format_option = Format.table,
    assert_linear: Annotated[
        bool,
        typer.Option(
            "--assert-linear",
            help="Exit with status 1 if a spec is not linear. A peer has no verdict: never fails.",
        ),
    ] = False,
    vs: Annotated[
        list[str] | None,
        typer.Option(
            "--vs",
            metavar="LIBRARY:MODEL",
            help="A peer that is no spec, counted beside them: timm:MODEL, torchvision:MODEL or "
            "transformers:MODEL_TYPE. Never downloads. Repeatable.",
        ),
    ] = None,
    set: set_option = None,
) -> None:
    """Count what networks cost at each image size, and say whether it is linear in the area.

    Two witnesses: the formulas of the parts claim, fvcore counts, and they must agree. Without
    --sizes: four sizes from the smallest at which nothing is padded, times 4 in area each. Peers
    start at their own published size. They are broken down by top-level child.

    Example: hierarch flops swin_tiny swin_mixer_tiny_d24 --sizes 256,512,1024
    """
    from hierarch.complexity import default_sizes, measure, measure_peer
    from hierarch.complexity.peers import DOUBLINGS

    wanted = sizes(at) if at is not None else None
    loaded = [read_spec(source, set) for source in specs]
    sweeps = [wanted or default_sizes(spec) for spec in loaded]
    named = list(dict.fromkeys(vs or ()))
    total = sum(map(len, sweeps)) + len(named) * len(wanted or DOUBLINGS)
    with _progress(total) as advance:
        peers = [measure_peer(name, wanted, advance=advance) for name in named]
        reports = [
            measure(spec, sweep, advance=advance)
            for spec, sweep in zip(loaded, sweeps, strict=True)
        ]
    names = Counter(report.name for report in reports)
    reports = [
        replace(report, name=f"{report.name} ({source})") if names[report.name] > 1 else report
        for report, source in zip(reports, specs, strict=True)
    ]
    _write(reports, peers, by, format)
    if assert_linear:
        bent = [report for report in reports if report.verdict != "linear"]
        for report in bent:
            typer.echo(f"{report.name} is {report.verdict}: {report.why}", err=True)
        if bent:
            raise typer.Exit(1)


def _write(reports: list[Report], peers: list[PeerReport], by: By, format: Format) -> None:
    from hierarch.report import comparison, markdown, records, table

    networks: list[Report | PeerReport] = [*reports, *peers]
    match format:
        case Format.json:
            data = {"schema_version": 1, "reports": [r.to_dict(by=by.value) for r in reports]}
            if peers:
                data["peers"] = [peer.to_dict(by=by.value) for peer in peers]
            write_json(data)
        case Format.csv:
            write_csv(records(networks, by=by.value))
        case Format.markdown:
            texts = [network.markdown(by=by.value) for network in networks]
            if len(networks) > 1:
                texts.append(markdown(comparison(networks)))
            typer.echo("\n\n".join(texts))
        case Format.table:
            for network in networks:
                show(network.render(by=by.value))
                show("")
            if len(networks) > 1:
                show(table(comparison(networks)))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """A bar on stderr once the work has taken a second, where a person sees it."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True, disable=not is_terminal())
    task = bar.add_task("counting", total=total)
    begun = time.monotonic()

    def advance() -> None:
        bar.advance(task)
        if time.monotonic() - begun > 1:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
