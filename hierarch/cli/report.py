"""`hierarch report`: networks, and what was found of them, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierarch.cli.common import read_spec, set_option, sizes, specs_argument
from hierarch.cli.progress import progress


def report(
    specs: specs_argument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file that is written.")
    ] = Path("report.html"),
    at: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            help="Image sizes of the costs: 224,448,896x1120 (height x width). Four, from the "
            "smallest at which nothing of the first spec is padded, if not given.",
        ),
    ] = None,
    bench: Annotated[
        list[Path] | None,
        typer.Option(
            "--bench", metavar="FILE", help="A file of hierarch bench --format json. Repeatable."
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results",
            metavar="RUN",
            help="A run folder, or a results.json, of hierarch train or ablate. Repeatable.",
        ),
    ] = None,
    set: set_option = None,
) -> None:
    """Write one HTML file that shows networks: architecture, cost, windows and masks, results.

    It needs nothing beside it: it opens from disk, without a network. Several specs are also set
    side by side, the first the reference. Needs the extra plot.

    Example: hierarch report swin_tiny swin_mixer_tiny_d24 -o report.html
    """
    from hierarch.page.writing import write_report

    read = [read_spec(source, set) for source in specs]
    with progress("measuring") as advance:
        path = write_report(
            read,
            output,
            sizes=None if at is None else sizes(at),
            bench=bench or (),
            results=results or (),
            advance=advance,
        )
    typer.echo(f"{path}: {path.stat().st_size:,} bytes")
