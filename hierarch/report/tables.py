"""Tables of preformatted cells, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.table import Table

from hierarch.spec.grid import Pair

Row = dict[str, str]
"""Preformatted cells by column."""


def table(rows: Sequence[Row]) -> Table:
    """A rich table of one or more rows that share their columns; numbers are right-aligned."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for column in rows[0]:
        justify: Literal["left", "right"] = "right" if holds_numbers(rows, column) else "left"
        drawn.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        drawn.add_row(*row.values())
    return drawn


def holds_numbers(rows: Sequence[Row], column: str) -> bool:
    """Whether every cell of a column is a number, or empty."""
    return all(
        row[column].removeprefix("x ")[:1].isdigit() or row[column] in ("", "-") for row in rows
    )


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table of one or more rows that share their columns."""
    header, rule = list(rows[0]), ["---"] * len(rows[0])
    lines = [header, rule, *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    """A cell that neither a bar nor a line break splits."""
    return " ".join(cell.splitlines()).replace("|", r"\|")


def giga(macs: int) -> str:
    """4509194496 -> "4.509"."""
    return f"{macs / 1e9:,.3f}"


def shown_size(size: Pair) -> str:
    """(224, 256) -> "224x256": height x width."""
    return f"{size[0]}x{size[1]}"
