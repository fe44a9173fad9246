"""Tables on a terminal of any width: nothing is cut off, and no number or name is broken.

A table that is too wide first wraps its headers and its longest texts. If that is not enough, it is
folded into parts, one below the other, each of which repeats the columns that say which row it is.
Where a long text has no room beside those, or where nothing has, each row becomes a short list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hierarch.report.tables import Row, holds_numbers

GAP = 2
"""Spaces between two columns."""
LONG = 28
"""The width from which on a text is long: it is wrapped first, but to no less than this."""
NARROW = 14
"""The width that other texts of several words are wrapped to, where nothing else helps."""
INDENT = 2
"""Spaces before each line of a list."""


@dataclass(frozen=True)
class Column:
    """One column of preformatted cells."""

    name: str
    cells: tuple[str, ...]
    numbers: bool
    """Right-aligned, and never wrapped."""
    floor: int = LONG
    """The width that its texts are wrapped to, at least."""

    @cached_property
    def widest(self) -> int:
        """The width of its widest cell."""
        return max(map(_width, self.cells))

    @cached_property
    def natural(self) -> int:
        """The width at which nothing is wrapped."""
        return max(_width(self.name), self.widest)

    @cached_property
    def least(self) -> int:
        """The smallest width at which no word is broken."""
        header = max(map(cell_len, _pieces(self.name)))
        if self.numbers:
            return max(header, self.widest)
        word = max((cell_len(word) for cell in self.cells for word in cell.split()), default=0)
        return max(header, min(self.widest, max(self.floor, word)))

    @property
    def is_long(self) -> bool:
        """Whether it has long texts."""
        return not self.numbers and self.widest > LONG and any(" " in cell for cell in self.cells)


@dataclass(frozen=True)
class Part:
    """Some columns of a table, and how they are drawn."""

    columns: Sequence[Column]
    as_lists: bool = False

    @property
    def least(self) -> int:
        """The smallest width at which it is a table."""
        return sum(column.least for column in self.columns) + GAP * (len(self.columns) - 1)


@dataclass(frozen=True)
class Folded:
    """A rich renderable: one or more rows that share their columns, in the width that there is."""

    rows: Sequence[Row]
    keys: int = 1
    """The leading columns that say which row it is."""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        columns = [
            Column(name, tuple(row[name] for row in self.rows), holds_numbers(self.rows, name))
            for name in self.rows[0]
        ]
        for i, part in enumerate(parts(columns, options.max_width, keys=self.keys)):
            if i:
                yield Text("")
            rows = zip(*(column.cells for column in part.columns), strict=True)
            # the first part has every row; in the others, some may have nothing
            shown = [row for row in rows if not i or any(row[self.keys :])]
            if part.as_lists:
                yield from _lists(part, shown, options.max_width, keys=self.keys)
            else:
                yield _table(part, shown, options.max_width)


def parts(columns: Sequence[Column], width: int, *, keys: int) -> list[Part]:
    """What a table is drawn in: itself, if it fits."""
    long = [column for column in columns[keys:] if column.is_long]
    unwrapped = sum(column.natural + GAP for column in columns) - GAP <= width
    if unwrapped or (Part(columns).least <= width and len(long) < 2):
        return [Part(columns)]
    if len(columns) <= keys:  # nothing to repeat them for
        return [Part(columns, as_lists=True)]
    first, rest = columns[:keys], [column for column in columns[keys:] if not column.is_long]
    found = _evened(first, rest, width)
    if any(part.least > width for part in found):
        if columns[0].floor > NARROW:
            return parts([replace(column, floor=NARROW) for column in columns], width, keys=keys)
        return [Part(columns, as_lists=True)]
    if long:
        last = Part([*first, *long])
        found.append(replace(last, as_lists=last.least > width or len(long) > 1))
    return found


def _evened(first: Sequence[Column], rest: Sequence[Column], width: int) -> list[Part]:
    """As few parts as there may be, and of like widths, so that no column is alone in the last."""
    found = _packed(first, rest, width)
    while True:
        width = max((part.least for part in found), default=0) - 1
        narrower = _packed(first, rest, width)
        if len(narrower) > len(found) or any(part.least > width for part in narrower):
            return found
        if not narrower:
            return []
        found = narrower


def _packed(first: Sequence[Column], rest: Sequence[Column], width: int) -> list[Part]:
    """The columns in order, in parts that are as wide as they may be, each with the first ones."""
    found: list[Part] = []
    for column in rest:
        wider = Part([*found[-1].columns, column]) if found else None
        if wider and wider.least <= width:
            found[-1] = wider
        else:
            found.append(Part([*first, column]))
    return found


def _table(part: Part, rows: Sequence[Sequence[str]], width: int) -> Table:
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for column, wide in zip(part.columns, widths(part, width), strict=True):
        header = Text(_wrapped(column.name, wide))
        justify: Literal["left", "right"] = "right" if column.numbers else "left"
        drawn.add_column(header, justify=justify, width=wide, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def widths(part: Part, width: int) -> list[int]:
    """The width of each column: what is left over goes first to those that need the least of it."""
    found = [column.least for column in part.columns]
    needs = [column.natural - column.least for column in part.columns]
    left = width - part.least
    for rank, i in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        more = min(needs[i], left // (len(needs) - rank))
        found[i] += more
        left -= more
    return found


def _lists(
    part: Part, rows: Sequence[Sequence[str]], width: int, *, keys: int
) -> Iterator[RenderableType]:
    """Each row as a title and a list of what is in its other columns."""
    names = [column.name for column in part.columns[keys:]]
    label = max(map(_width, names), default=0)
    for i, row in enumerate(rows):
        if i and len(names) > 1:
            yield Text("")
        yield Text("  ".join(filter(None, row[:keys])), "bold")
        drawn = Table(box=None, pad_edge=False, show_header=False)
        drawn.add_column(width=label)
        drawn.add_column(width=max(1, width - INDENT - label - GAP), overflow="fold")
        for name, cell in zip(names, row[keys:], strict=True):
            if cell:
                drawn.add_row(Text(name), Text(cell))
        if drawn.rows:
            yield Padding(drawn, (0, 0, 0, INDENT))


def _pieces(header: str) -> list[str]:
    """The parts of a header that stay whole: "MACs/token (x)" -> "MACs/", "token", " (x)"."""
    return re.findall(r" ?[^ /]+/?| |/", header) or [""]


def _wrapped(header: str, width: int) -> str:
    """A header in lines of at most so many columns, broken at spaces and after slashes."""
    lines = [""]
    for piece in _pieces(header):
        if cell_len(lines[-1] + piece) <= width:
            lines[-1] += piece
        else:
            lines.append(piece.lstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns of a text's longest line."""
    return max(map(cell_len, text.splitlines()), default=0)
