"""Tables of the names that two libraries give to the same weights, usable in both directions.

A row pairs templates of our names and theirs, such as "stages.{i}.downsample.*" and
"features.{2i}.*": {i} and {j} match numbers, and * matches the rest of the name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

Values = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Converts the tensors of one library to those of the other."""

_FIELD = re.compile(r"\\\{(\d*)([a-z])((?:\\\+|\\-)\d+)?\\\}|\\\*")


class Template:
    """A pattern of names with numbers in them: "features.{2i+1}.{j}.*"."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._terms: dict[str, tuple[int, int]] = {}
        self._pattern = re.compile(_FIELD.sub(self._group, re.escape(text)))

    def _group(self, field: re.Match[str]) -> str:
        factor, letter, offset = field.groups()
        if letter is None:
            return "(?P<rest>.+)"
        self._terms[letter] = int(factor or 1), int((offset or "0").replace("\\", ""))
        return rf"(?P<{letter}>\d{{1,4}})"

    def read(self, name: str) -> dict[str, str] | None:
        """The values of i, j and * in a name; None if the name does not match."""
        match = self._pattern.fullmatch(name)
        if not match:
            return None
        bound = match.groupdict()
        for letter, (factor, offset) in self._terms.items():
            value, rest = divmod(int(bound[letter]) - offset, factor)
            if rest or value < 0:
                return None
            bound[letter] = str(value)
        return bound

    def write(self, bound: dict[str, str]) -> str | None:
        """The name for values of i, j and *; None if a number in it would be negative."""
        name = self.text.replace("*", bound.get("rest", ""))
        for letter, (factor, offset) in self._terms.items():
            number = factor * int(bound[letter]) + offset
            if number < 0:
                return None
            name = re.sub(rf"\{{\d*{letter}(?:[+-]\d+)?\}}", str(number), name)
        return name


_template = functools.cache(Template)


def unchanged(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The same tensors, for weights that both libraries store alike."""
    return tensors


@dataclass(frozen=True)
class Conversion:
    """How the tensors of a row are converted, in both directions.

    >>> transposed = Conversion(
    ...     to_theirs=lambda tensors: [tensors[0].T], to_ours=lambda tensors: [tensors[0].T]
    ... )
    >>> row("head.fc.weight", "classes.weight", transposed).conversion is transposed
    True
    """

    to_theirs: Values = unchanged
    to_ours: Values = unchanged


SAME = Conversion()


@dataclass(frozen=True)
class Row:
    """Templates of our names and theirs, for the same weights.

    >>> table = [row("stages.{i}.norm.*", "norm{i}.*")]
    >>> from_ours(table, ["stages.2.norm.bias"])[0][0].theirs
    ('norm2.bias',)
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    conversion: Conversion = SAME
    when: str | None = None
    """A template of our names: when converting to theirs, the row applies only if there is a weight
    of this name."""


@dataclass(frozen=True)
class Link:
    """A row with numbers in place: the names of some weights of ours, and of the same in theirs."""

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
    """A row of a table. A single name may be given as a string.

    >>> row("stages.{i}.norm.*", "norm{i}.*").theirs
    ('norm{i}.*',)
    """
    ours, theirs = ((names,) if isinstance(names, str) else names for names in (ours, theirs))
    return Row(ours, theirs, conversion, when)


def rows(ours: str, theirs: str, *names: str) -> list[Row]:
    """A row for each of `names`, which our module and theirs have in common.

    >>> [line.theirs for line in rows("stem", "patchify", "proj.*", "norm.*")]
    [('patchify.proj.*',), ('patchify.norm.*',)]
    """
    return [row(f"{ours}.{name}", f"{theirs}.{name}") for name in names]


def from_ours(table: Sequence[Row], names: Iterable[str]) -> tuple[list[Link], list[str]]:
    """The links of our names, and the names that no row matches."""
    return _links(table, list(names), lambda row: row.ours, guarded=True)


def from_theirs(table: Sequence[Row], names: Iterable[str]) -> tuple[list[Link], list[str]]:
    """The links of another library's names, and the names that no row matches."""
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
