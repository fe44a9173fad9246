"""Tables that say how two libraries name the same weights, read from either side.

A row holds one of our names and theirs, as templates: "stages.{i}.downsample.*" and
"features.{2i}.*". {i} and {j} are numbers, and * is the rest of the name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

Values = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""The tensors of one side from those of the other."""

_FIELD = re.compile(r"\\\{(\d*)([a-z])((?:\\\+|\\-)\d+)?\\\}|\\\*")


class Template:
    """A name with numbers in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._terms: dict[str, tuple[int, int]] = {}
        self._pattern = re.compile(_FIELD.sub(self._group, re.escape(text)))

    def _group(self, found: re.Match[str]) -> str:
        factor, letter, offset = found.groups()
        if letter is None:
            return "(?P<rest>.+)"
        self._terms[letter] = int(factor or 1), int((offset or "0").replace("\\", ""))
        return rf"(?P<{letter}>\d{{1,4}})"

    def read(self, name: str) -> dict[str, str] | None:
        """What stands for i, j and * in a name; None for a name of another kind."""
        found = self._pattern.fullmatch(name)
        if not found:
            return None
        bound = found.groupdict()
        for letter, (factor, offset) in self._terms.items():
            value, rest = divmod(int(bound[letter]) - offset, factor)
            if rest or value < 0:
                return None
            bound[letter] = str(value)
        return bound

    def write(self, bound: dict[str, str]) -> str | None:
        """The name for what stands for i, j and *; None where there is none (layer -1)."""
        name = self.text.replace("*", bound.get("rest", ""))
        for letter, (factor, offset) in self._terms.items():
            number = factor * int(bound[letter]) + offset
            if number < 0:
                return None
            name = re.sub(rf"\{{\d*{letter}(?:[+-]\d+)?\}}", str(number), name)
        return name


_template = functools.cache(Template)


def unchanged(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return tensors


@dataclass(frozen=True)
class Conversion:
    """How the numbers of one side become those of the other, where they are not the same."""

    to_theirs: Values = unchanged
    to_ours: Values = unchanged


SAME = Conversion()


@dataclass(frozen=True)
class Row:
    """Our templates and theirs for weights that hold the same numbers."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    conversion: Conversion = SAME
    when: str | None = None
    """One of our names that there has to be for the row to hold, when writing theirs."""


@dataclass(frozen=True)
class Link:
    """Some of our weights, and those of another library that hold the same numbers."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    conversion: Conversion


def row(
    ours: str | tuple[str, ...],
    theirs: str | tuple[str, ...],
    conversion: Conversion = SAME,
    *,
    when: str | None = None,
) -> Row:
    """A row of a table; one name stands for a tuple of it."""
    ours, theirs = ((names,) if isinstance(names, str) else names for names in (ours, theirs))
    return Row(ours, theirs, conversion, when)


def rows(ours: str, theirs: str, *names: str) -> list[Row]:
    """A row for each of `names`, which are the same inside our module and theirs."""
    return [row(f"{ours}.{name}", f"{theirs}.{name}") for name in names]


def from_ours(table: Sequence[Row], names: Iterable[str]) -> tuple[list[Link], list[str]]:
    """The links of our names, and the names that no row knows."""
    return _links(table, list(names), lambda row: row.ours, guarded=True)


def from_theirs(table: Sequence[Row], names: Iterable[str]) -> tuple[list[Link], list[str]]:
    """The links of another library's names, and the names that no row knows."""
    return _links(table, list(names), lambda row: row.theirs, guarded=False)


def _links(
    table: Sequence[Row],
    names: Sequence[str],
    side: Callable[[Row], tuple[str, ...]],
    *,
    guarded: bool,
) -> tuple[list[Link], list[str]]:
    known = set(names)
    links: dict[Link, None] = {}
    unknown = []
    for name in names:
        for row in table:
            link = _link(row, name, side(row), known if guarded else None)
            if link:
                links[link] = None
                break
        else:
            unknown.append(name)
    return list(links), unknown


def _link(row: Row, name: str, templates: tuple[str, ...], ours: set[str] | None) -> Link | None:
    for text in templates:
        bound = _template(text).read(name)
        if bound is None:
            continue
        if ours is not None and row.when and _template(row.when).write(bound) not in ours:
            continue
        here, there = ([_template(t).write(bound) for t in side] for side in (row.ours, row.theirs))
        if None not in (*here, *there):
            return Link(tuple(map(str, here)), tuple(map(str, there)), row.conversion)
    return None
