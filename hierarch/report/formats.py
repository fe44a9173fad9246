"""The protocol of all reports, and the formats that any of them can be written in.

A report has three views of its content: data for JSON, flat records for CSV, and blocks (titles,
paragraphs, tables) for people. Each format is written here, once, from one of these views.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.text import Text

from hierarch.errors import FormatError
from hierarch.report.latex import booktabs, escaped
from hierarch.report.tables import Row, markdown_table, table

WIDTH = 140
"""Columns of text that is not written to a terminal."""


@dataclass(frozen=True)
class Title:
    """Opens the report on one subject; a blank line separates it from the subject before."""

    name: str
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text, wrapped to the terminal's width. `lead` is emphasized and comes first."""

    text: str
    lead: str = ""
    style: str = "bold"
    """The rich style of `lead`."""


@dataclass(frozen=True)
class Line:
    """One line that is never wrapped, so that it can be searched."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows that share their columns, under an optional heading; without rows, nothing."""

    rows: Sequence[Row]
    heading: str = ""


Block = Title | Paragraph | Line | Table


class Printable(Protocol):
    """A report: one content in three views, from which every format is made."""

    def to_data(self) -> Any:
        """What JSON holds: numbers, strings, lists and mappings, not formatted for display."""

    def records(self) -> Sequence[Mapping[str, Any]]:
        """What CSV holds: flat records that all have the keys of the first."""

    def blocks(self) -> Sequence[Block]:
        """What a terminal, Markdown and LaTeX show, from top to bottom."""


def text(report: Printable, format: str = "table") -> str:
    """The report as text in one of `FORMATS`, ending in a newline unless it is empty.

    Raises `FormatError`, a `ValueError`, for a format that is not among them.
    """
    try:
        write = FORMATS[format]
    except KeyError:
        known = ", ".join(FORMATS)
        raise FormatError(f"unknown report format {str(format)[:80]!r}; known: {known}") from None
    return write(report)


def draw(blocks: Iterable[Block]) -> RenderableType:
    """Blocks for a terminal, with a blank line before each title, table and group of paragraphs."""
    shown = _not_empty(blocks)
    parts: list[RenderableType] = [part for block in shown[:1] for part in _drawn(block)]
    for before, block in pairwise(shown):
        if isinstance(before, Title | Table) or isinstance(block, Title | Table):
            parts.append(Text(""))
        parts += _drawn(block)
    return Group(*parts)


def markdown(blocks: Iterable[Block]) -> str:
    """Blocks as Markdown, without a newline at the end."""
    return "\n\n".join(map(_in_markdown, _not_empty(blocks)))


def _not_empty(blocks: Iterable[Block]) -> list[Block]:
    return [block for block in blocks if not isinstance(block, Table) or block.rows]


def _drawn(block: Block) -> list[RenderableType]:
    match block:
        case Title():
            return [Text.assemble((block.name, "bold"), f"  {block.text}")]
        case Paragraph():
            lead = f"{block.lead}: " if block.lead else ""
            return [Text.assemble((lead[:-2], block.style), lead[-2:], block.text)]
        case Line():
            return [Text(block.text, no_wrap=True, overflow="ignore")]
        case Table():
            heading = [Text(block.heading, style="bold")] if block.heading else []
            return [*heading, table(block.rows)]


def _in_markdown(block: Block) -> str:
    match block:
        case Title():
            return f"**{block.name}**: {block.text}"
        case Paragraph():
            return f"**{block.lead}**: {block.text}" if block.lead else block.text
        case Line():
            return f"- {block.text}"
        case Table():
            heading = f"**{block.heading}**\n\n" if block.heading else ""
            return heading + markdown_table(block.rows)


def latex(blocks: Iterable[Block]) -> str:
    """Blocks as LaTeX, without a newline at the end; its tables need the package booktabs."""
    return "\n\n".join(map(_in_latex, _not_empty(blocks)))


def _in_latex(block: Block) -> str:
    match block:
        case Title():
            return rf"\paragraph{{{escaped(block.name)}}} {escaped(block.text)}"
        case Paragraph():
            lead = rf"\textbf{{{escaped(block.lead)}}}: " if block.lead else ""
            return lead + escaped(block.text)
        case Line():
            return rf"\noindent {escaped(block.text)}"
        case Table():
            heading = rf"\noindent\textbf{{{escaped(block.heading)}}}" if block.heading else ""
            return "\n\n".join(filter(None, [heading, booktabs(block.rows)]))


@dataclass(frozen=True)
class Listing:
    """A report that is a table of preformatted cells in every format."""

    rows: tuple[Row, ...]

    def to_data(self) -> list[Row]:
        """One mapping per row."""
        return list(self.rows)

    def records(self) -> list[Row]:
        """One record per row."""
        return list(self.rows)

    def blocks(self) -> list[Block]:
        """One table."""
        return [Table(self.rows)]


def print_to(console: Console, report: Printable) -> None:
    """Draw the report on a rich console."""
    # rich crops to the width even what is not wrapped
    console.print(draw(report.blocks()), crop=False)


def _table(report: Printable) -> str:
    stream = io.StringIO()
    print_to(Console(file=stream, width=WIDTH, color_system=None, highlight=False), report)
    return stream.getvalue() if report.blocks() else ""


def _json(report: Printable) -> str:
    return json_text(report.to_data())


def json_text(data: Any) -> str:
    """Data as an indented JSON document, ending in a newline."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _csv(report: Printable) -> str:
    return csv_text(report.records())


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Flat records, which all have the keys of the first, as CSV; "" without any."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, records[0] if records else (), lineterminator="\n")
    if records:
        writer.writeheader()
        writer.writerows(records)
    return stream.getvalue()


def _markdown(report: Printable) -> str:
    shown = markdown(report.blocks())
    return f"{shown}\n" if shown else ""


def _latex(report: Printable) -> str:
    shown = latex(report.blocks())
    return f"{shown}\n" if shown else ""


FORMATS: dict[str, Callable[[Printable], str]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
}
"""Every format by name. The command line offers these in `--format`."""
