"""The protocol of all reports, and the formats that any of them can be written in.

A report has three views of its content: data for JSON, flat records for CSV, and blocks (titles,
paragraphs, tables) for people. Each format is written here, once, from one of these views.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from hierarch.errors import FormatError
from hierarch.report.folding import Folded
from hierarch.report.latex import booktabs, escaped
from hierarch.report.tables import Row, markdown_table

WIDTH = 80
"""Columns of text that is not written to a terminal."""


@dataclass(frozen=True)
class Title:
    """Opens the report on one subject; a blank line separates it from the subject before.

    >>> markdown([Title("swin_tiny", "28,288,354 parameters")])
    '**swin_tiny**: 28,288,354 parameters'
    """

    name: str
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text, wrapped to the terminal's width. `lead` is emphasized and comes first.

    >>> markdown([Paragraph("the cost per token stays bounded", lead="linear")])
    '**linear**: the cost per token stays bounded'
    """

    text: str
    lead: str = ""
    style: str = "bold"
    """The rich style of `lead`."""


@dataclass(frozen=True)
class Line:
    """One line, wrapped on a terminal alone, and only between words: so it can be searched in a
    file, and a path in it is always whole.

    >>> markdown([Line("fit: MACs ~ pixels^1.0")])
    '- fit: MACs ~ pixels^1.0'
    """

    text: str


@dataclass(frozen=True)
class Table:
    """Rows that share their columns, under an optional heading; without rows, nothing.

    >>> print(markdown([Table([{"stage": "0", "dim": "96"}], heading="widths")]))
    **widths**
    <BLANKLINE>
    | stage | dim |
    | --- | --- |
    | 0 | 96 |
    """

    rows: Sequence[Row]
    heading: str = ""
    keys: int = 1
    """The leading columns that say which row it is: repeated where the table is folded."""


Block = Title | Paragraph | Line | Table


class Printable(Protocol):
    """A report: one content in three views, from which every format is made.

    >>> class Answer:
    ...     def to_data(self):
    ...         return 42
    ...
    ...     def records(self):
    ...         return [{"answer": 42}]
    ...
    ...     def blocks(self):
    ...         return [Line("42")]
    >>> [text(Answer(), format).strip() for format in ("json", "table")]
    ['42', '42']
    """

    def to_data(self) -> Any:
        """What JSON holds: numbers, strings, lists and mappings, not formatted for display."""

    def records(self) -> Sequence[Mapping[str, Any]]:
        """What CSV holds: flat records that all have the keys of the first."""

    def blocks(self) -> Sequence[Block]:
        """What a terminal, Markdown and LaTeX show, from top to bottom."""


def text(report: Printable, format: str = "table", *, width: int = WIDTH) -> str:
    """The report as text in one of `FORMATS`, ending in a newline unless it is empty.

    `width` is the number of columns that tables and paragraphs for people are folded to. Raises
    `FormatError`, a `ValueError`, for a format that is not among them.

    >>> print(text(Listing(({"stage": "0", "channels": "96"},)), "markdown"))
    | stage | channels |
    | --- | --- |
    | 0 | 96 |
    <BLANKLINE>
    """
    try:
        write = FORMATS[format]
    except KeyError:
        known = ", ".join(FORMATS)
        raise FormatError(f"unknown report format {str(format)[:80]!r}; known: {known}") from None
    return _table(report, width) if write is _table else write(report)


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
            return [_Line(block.text)]
        case Table():
            heading = [Text(block.heading, style="bold")] if block.heading else []
            return [*heading, Folded(block.rows, block.keys)]


@dataclass(frozen=True)
class _Line:
    """The rich renderable of a `Line`."""

    text: str

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        lines = [self.text]
        if options.is_terminal:
            lines = wrap(
                self.text, options.max_width, break_long_words=False, break_on_hyphens=False
            )
        yield from (Text(line, no_wrap=True, overflow="ignore") for line in lines)


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
    """A report that is a table of preformatted cells in every format.

    >>> text(Listing(({"stage": "0", "channels": "96"},)), "csv")
    'stage,channels\\n0,96\\n'
    """

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
    # rich crops to the width even a line that is not wrapped
    console.print(draw(report.blocks()), crop=False)


def _table(report: Printable, width: int = WIDTH) -> str:
    stream = io.StringIO()
    print_to(Console(file=stream, width=width, color_system=None, highlight=False), report)
    # rich fills cells up with spaces
    lines = (line.rstrip() for line in stream.getvalue().splitlines())
    return "".join(f"{line}\n" for line in lines) if report.blocks() else ""


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
