"""Options and helpers that several commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hierarch import __version__
from hierarch.cli import completion
from hierarch.errors import SpecError
from hierarch.spec.grid import AXES, Sides

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from hierarch.report.formats import Printable
    from hierarch.spec.backbone import BackboneSpec


class Format(StrEnum):
    """The keys of `hierarch.report.FORMATS`, repeated so that --help is fast.

    >>> from hierarch.report import FORMATS
    >>> list(Format) == list(FORMATS)
    True
    """

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hierarch {__version__}")
        raise typer.Exit


spec_argument = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="A YAML file, or a preset's name.", autocompletion=completion.specs
    ),
]
specs_argument = Annotated[
    list[str],
    typer.Argument(
        metavar="SPEC...", help="YAML files, or presets' names.", autocompletion=completion.specs
    ),
]
set_option = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Set a value in the spec: stages.2.depth=18, mixer.window_size=8. Repeatable.",
        autocompletion=completion.spec_assignments,
    ),
]
format_option = Annotated[Format, typer.Option("--format", help="Format of the result.")]
version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


def read_spec(source: str, assignments: Sequence[str] | None) -> BackboneSpec:
    """The spec of a file or preset, with the assignments of `--set` applied."""
    from hierarch.spec.load import read, validate
    from hierarch.spec.overrides import assign, parse_assignment

    document = read(source)
    assign(document.data, map(parse_assignment, assignments or ()))
    return validate(document)


def numbers(text: str, option: str) -> list[int]:
    """`2,3` -> [2, 3]. Raises `SpecError`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SpecError(f"{option} {text[:80]!r}: write it as 2,3") from None


EXAMPLES = {1: "896", 2: "896x1120", 3: "16x224x224"}


def sizes(text: str, option: str = "--sizes", *, axes: int = 2) -> list[Sides]:
    """`224,896x1120` -> [(224, 224), (896, 1120)], for images or what has so many other axes.
    Raises `SpecError`."""
    parsed: list[Sides] = []
    for part in text.split(","):
        sides = part.strip().lower().split("x")
        is_size = all(s.isascii() and s.isdecimal() and len(s) < 10 for s in sides)
        if not is_size or len(sides) not in (1, axes):
            example = f"224 or {EXAMPLES[axes]} ({' x '.join(AXES[axes])})"
            raise SpecError(f"{option} {part[:80]!r}: write it as {example}")
        given = tuple(map(int, sides))
        parsed.append(given * axes if len(given) == 1 else given)
    return parsed


def write(report: Printable, format: Format, *, err: bool = False) -> None:
    """Write a report to stdout, or to stderr. Raises `FormatError` for an unknown format.

    On a terminal, tables fit its width, and titles have colors unless NO_COLOR is set. Elsewhere
    the width is the variable COLUMNS, or else 80.

    >>> from hierarch.report import Listing
    >>> write(Listing(({"stage": "0", "channels": "96"},)), Format.csv)
    stage,channels
    0,96
    """
    from hierarch.report.formats import print_to, text

    console = _console(err=err)
    if format is Format.table and console.is_terminal:
        print_to(console, report)
    else:
        typer.echo(text(report, format, width=console.width), nl=False, err=err)


def _console(*, err: bool) -> Console:
    from rich.console import Console

    from hierarch.report.formats import WIDTH

    # rich's NO_COLOR leaves bold type, and behind a pipe it asks for the width of stdin's terminal
    system: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(stderr=err, color_system=system, highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        console.width = WIDTH
    return console


def write_json(data: Any) -> None:
    """Write a JSON document to stdout."""
    from hierarch.report.formats import json_text

    typer.echo(json_text(data), nl=False)


def write_rows(rows: Sequence[dict[str, str]], format: Format) -> None:
    """Write rows with the same columns to stdout."""
    from hierarch.report.formats import Listing

    write(Listing(tuple(rows)), format)


def save(path: Path, text: str) -> None:
    """Write a spec's text to a file. Raises `SpecError` if that fails."""
    from hierarch.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise SpecError(f"cannot be written: {error.strerror}", source=str(path)) from None
