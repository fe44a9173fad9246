"""Rows of cells, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from hierarch.spec.base import Pair

Row = dict[str, str]
"""Cells by column."""


def table(rows: Sequence[Row]) -> Table:
    """A rich table of rows that share their columns; numbers stand right."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for column in rows[0]:
        numbers = all(
            row[column].removeprefix("x ")[:1].isdigit() or row[column] in ("", "-") for row in rows
        )
        drawn.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row.values())
    return drawn


def markdown(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def giga(macs: int) -> str:
    return f"{macs / 1e9:,.3f}"


def shown_size(size: Pair) -> str:
    return f"{size[0]}x{size[1]}"
