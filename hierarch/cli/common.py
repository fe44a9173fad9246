"""Options and helpers that commands share."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierarch import __version__
from hierarch.errors import SpecError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hierarch.spec.backbone import BackboneSpec
    from hierarch.spec.base import Pair


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


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
format_option = Annotated[Format, typer.Option("--format", help="How to write the result.")]
version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


def read_spec(source: str, assignments: Sequence[str] | None) -> BackboneSpec:
    """The spec of a file or preset, with the values of `--set` in it."""
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


def sizes(text: str) -> list[Pair]:
    """`224,896x1120` -> [(224, 224), (896, 1120)]. Raises `SpecError`."""
    found = []
    for part in text.split(","):
        sides = part.strip().lower().split("x")
        if len(sides) > 2 or not all(s.isascii() and s.isdecimal() and len(s) < 10 for s in sides):
            raise SpecError(f"--sizes {part[:80]!r}: write it as 224 or 896x1120 (height x width)")
        found.append((int(sides[0]), int(sides[-1])))
    return found


def show(drawn: RenderableType) -> None:
    """Print to stdout; a pipe or a file is no narrow terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    console.print(drawn)


def write_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def write_csv(rows: Sequence[dict[str, Any]]) -> None:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    typer.echo(stream.getvalue(), nl=False)


def write_rows(rows: Sequence[dict[str, str]], format: Format) -> None:
    """Rows that share their columns, in the format asked for."""
    from hierarch.report import markdown, table

    match format:
        case Format.table:
            show(table(rows))
        case Format.json:
            write_json(rows)
        case Format.csv:
            write_csv(rows)
        case Format.markdown:
            typer.echo(markdown(rows))


def is_terminal() -> bool:
    """Whether a person sees stderr."""
    return sys.stderr.isatty()
