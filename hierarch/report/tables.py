"""Preformatted cells of tables, and tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from hierarch.spec.grid import AXES, Sides

Row = dict[str, str]
"""Preformatted cells by column."""


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


EXTENTS = {1: "length", 2: "area", 3: "volume"}
"""What pixels measure, for each number of axes."""


def shown_size(size: Sides) -> str:
    """(224, 256) -> "224x256": height x width."""
    return "x".join(map(str, size))


def sides_by_name(size: Sides) -> dict[str, int]:
    """(224, 256) -> {"height": 224, "width": 256}; a video has "frames" as well."""
    return dict(zip(AXES[len(size)], size, strict=True))
