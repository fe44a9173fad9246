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
    from hierarch.report import Report


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
        bool, typer.Option("--assert-linear", help="Exit with status 1 if a network is not linear.")
    ] = False,
    set: set_option = None,
) -> None:
    """Count what networks cost at each image size, and say whether it is linear in the area.

    Two witnesses: the formulas of the parts claim, fvcore counts, and they must agree. Without
    --sizes: four sizes from the smallest at which nothing is padded, times 4 in area each.

    Example: hierarch flops swin_tiny swin_mixer_tiny_d24 --sizes 256,512,1024
    """
    from hierarch.complexity import default_sizes, measure

    wanted = sizes(at) if at is not None else None
    loaded = [read_spec(source, set) for source in specs]
    sweeps = [wanted or default_sizes(spec) for spec in loaded]
    with _progress(sum(map(len, sweeps))) as advance:
        reports = [
            measure(spec, sweep, advance=advance)
            for spec, sweep in zip(loaded, sweeps, strict=True)
        ]
    names = Counter(report.name for report in reports)
    reports = [
        replace(report, name=f"{report.name} ({source})") if names[report.name] > 1 else report
        for report, source in zip(reports, specs, strict=True)
    ]
    _write(reports, by, format)
    if assert_linear:
        bent = [report for report in reports if report.verdict != "linear"]
        for report in bent:
            typer.echo(f"{report.name} is {report.verdict}: {report.why}", err=True)
        if bent:
            raise typer.Exit(1)


def _write(reports: list[Report], by: By, format: Format) -> None:
    from hierarch.report import comparison, markdown, records, table

    match format:
        case Format.json:
            dicts = [report.to_dict(by=by.value) for report in reports]
            write_json({"schema_version": 1, "reports": dicts})
        case Format.csv:
            write_csv(records(reports, by=by.value))
        case Format.markdown:
            texts = [report.markdown(by=by.value) for report in reports]
            if len(reports) > 1:
                texts.append(markdown(comparison(reports)))
            typer.echo("\n\n".join(texts))
        case Format.table:
            for report in reports:
                show(report.render(by=by.value))
                show("")
            if len(reports) > 1:
                show(table(comparison(reports)))


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
