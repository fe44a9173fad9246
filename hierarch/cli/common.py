"""Options and helpers that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierarch import __version__
from hierarch.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from hierarch.report.formats import Printable
    from hierarch.spec.backbone import BackboneSpec
    from hierarch.spec.grid import Pair


class Format(StrEnum):
    """The keys of `hierarch.report.formats.FORMATS`, repeated so that --help is fast."""

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
    str, typer.Argument(metavar="SPEC", help="A YAML file, or a preset's name.")
]
specs_argument = Annotated[
    list[str], typer.Argument(metavar="SPEC...", help="YAML files, or presets' names.")
]
set_option = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Set a value in the spec: stages.2.depth=18, mixer.window_size=8. Repeatable.",
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


def sizes(text: str, option: str = "--sizes") -> list[Pair]:
    """`224,896x1120` -> [(224, 224), (896, 1120)]. Raises `SpecError`."""
    parsed = []
    for part in text.split(","):
        sides = part.strip().lower().split("x")
        if len(sides) > 2 or not all(s.isascii() and s.isdecimal() and len(s) < 10 for s in sides):
            raise SpecError(f"{option} {part[:80]!r}: write it as 224 or 896x1120 (height x width)")
        parsed.append((int(sides[0]), int(sides[-1])))
    return parsed


def write(report: Printable, format: Format) -> None:
    """Write a report to stdout. Raises `FormatError` for an unknown format."""
    from rich.console import Console

    from hierarch.report.formats import print_to, text

    console = Console(highlight=False)
    if format is Format.table and console.is_terminal:
        print_to(console, report)
    else:
        typer.echo(text(report, format), nl=False)


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
