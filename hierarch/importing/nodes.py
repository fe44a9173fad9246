"""The values of a config, each with its file and line, and readers that check their types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hierarch.errors import Problem, SpecError
from hierarch.spec.base import nearest, shown

MAX_VALUES = 200_000
"""The most values that the files of one config may have together, copies included."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A position in a file; lines and columns count from 1, and 0 stands for no position."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def error(self, message: str, path: str = "") -> SpecError:
        """The error for a mistake at this place."""
        return SpecError([Problem(message, path, self.line, self.column)], source=self.file)


@dataclass(frozen=True)
class Unread:
    """The value of an expression that only Python could evaluate. It is an error if it is needed,
    and nothing otherwise."""

    reason: str
    """Where it comes from: "an f-string"."""
    remedy: str = "no code is run, so write the value itself"
    mentions: tuple[Node, ...] = field(default=(), repr=False)
    """What the value may be a part of, or hold."""


@dataclass(frozen=True)
class Symbol:
    """A class or a module that a config imports; only its name is known."""

    name: str


@dataclass(eq=False)
class Node:
    """A value at a place: None, a bool, a number, text, a list or a dict of nodes, or one of the
    classes above. It is mutable, and shared where Python would share the object."""

    value: Any
    place: Place
    more: Node | None = None
    """Of a dict: what could not be read, and may hold further keys."""
    used: bool = False

    def is_read(self) -> bool:
        return not isinstance(self.value, Unread)


class Budget:
    """Bounds the work on a config, whatever it repeats and includes."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def spend(self, values: int, place: Place) -> None:
        """Raise `SpecError` when more values are made than any config has."""
        self.left -= values
        if self.left < 0:
            raise place.error(f"more than {MAX_VALUES} values; no config has as many")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    """What a value is, for errors: 'text', or the value itself."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"
    return value.name if isinstance(value, Symbol) else shown(value)


class Section:
    """A mapping of a config, whose keys are taken one by one, with a check of each value."""

    def __init__(self, node: Node, path: str = "") -> None:
        self.node, self.path = node, path
        self._readable(node, path)
        if not isinstance(node.value, dict):
            raise node.place.error(f"should be a mapping, got {_kind(node.value)}", path)
        self.keys: dict[str, Node] = node.value

    @staticmethod
    def _readable(node: Node, path: str, comes: str = "comes") -> None:
        if isinstance(node.value, Unread):
            why = node.value
            raise node.place.error(f"{comes} from {why.reason}; {why.remedy}", path)

    def named(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def error(self, key: str, message: str) -> SpecError:
        """The error for a mistake in the value of a key, or in the section where it is missing."""
        return self.keys.get(key, self.node).place.error(message, self.named(key))

    def find(self, key: str) -> Node | None:
        """The value of a key, whatever it is; None if it is missing.

        Raises `SpecError` if it may be given where nothing could be read.
        """
        node = self.keys.get(key)
        if node is None:
            if self.node.more is not None:
                self._readable(self.node.more, self.named(key), "may come")
            return None
        self._readable(node, self.named(key))
        node.used = True
        return node

    def take(self, key: str, default: T, check: Callable[[Any], bool], wanted: str) -> T:
        """The plain value of a key. Raises `SpecError` unless it passes the check."""
        node = self.find(key)
        if node is None:
            return default
        value = _plain(node, self.named(key))
        if not check(value):
            raise self.error(key, f"should be {wanted}, got {_kind(value)}")
        result: T = value
        return result

    def section(self, key: str) -> Section | None:
        """The mapping of a key; None if it is missing or null."""
        node = self.find(key)
        return None if node is None or node.value is None else Section(node, self.named(key))

    def integer(self, key: str, default: int, low: int = 1, high: int = 65_536) -> int:
        return self.take(
            key,
            default,
            lambda v: type(v) is int and low <= v <= high,
            f"an integer from {low} to {high}",
        )

    def number(self, key: str, default: float) -> float:
        return float(self.take(key, default, is_number, "a number"))

    def flag(self, key: str, default: bool) -> bool:
        return self.take(key, default, lambda v: type(v) is bool, "true or false")

    def text(self, key: str, default: str) -> str:
        """Text, or the name of a class that the config imports."""
        node = self.find(key)
        if node is not None and isinstance(node.value, Symbol):
            return node.value.name
        return self.take(key, default, lambda v: isinstance(v, str), "text")

    def integers(self, key: str, default: Iterable[int], length: int = 0) -> list[int]:
        """A list of integers, of this length if one is given."""
        many = f"{length} integers" if length else "integers"
        return self.take(
            key,
            list(default),
            lambda v: (
                isinstance(v, list)
                and all(type(n) is int and 0 <= n <= 65_536 for n in v)
                and len(v) in ((length,) if length else range(1, 17))
            ),
            f"a list of {many}",
        )

    def only(self, known: Iterable[str], note: str, *, ignored: Iterable[str] = ()) -> None:
        """Raise `SpecError` for a key that is none of these."""
        known = list(known)
        for key in self.keys:
            if key not in known and key not in ignored:
                raise self.error(key, f"unknown key {shown(key)}, {nearest(key, known)}; {note}")

    def refuse(self, key: str, said_by_default: Callable[[Any], bool], why: str) -> None:
        """Raise `SpecError` where a key has another value than one that says nothing."""
        node = self.find(key)
        if node is not None:
            value = _plain(node, self.named(key))
            if not said_by_default(value):
                raise self.error(key, f"{why}, got {_kind(value)}")


def _plain(node: Node, path: str, depth: int = 8) -> Any:
    """The data of a node. Raises `SpecError` for a part of it that cannot be read."""
    Section._readable(node, path)
    if not depth:
        raise node.place.error("is nested too deeply", path)
    if isinstance(node.value, list):
        return [_plain(item, f"{path}[{i}]", depth - 1) for i, item in enumerate(node.value[:1025])]
    return node.value


def left_out(root: Node) -> Iterator[str]:
    """The shortest paths of a config to what nothing was taken from."""
    return _left_out(root, "", _with_used_parts(root), 3)


def _left_out(root: Node, path: str, used: set[int], depth: int) -> Iterator[str]:
    for key, node in root.value.items():
        if isinstance(node.value, Symbol):  # a name that the config imports, and no value of it
            continue
        if id(node) not in used:
            yield f"{path}{key}"
        elif depth > 1 and isinstance(node.value, dict):
            yield from _left_out(node, f"{path}{key}.", used, depth - 1)


def _with_used_parts(root: Node) -> set[int]:
    """The ids of the nodes from which a value was taken, and of all that hold one of them."""
    holders: dict[int, list[int]] = {id(root): []}
    waiting, marked = [root], []
    while waiting:
        node = waiting.pop()
        for part in parts(node):
            if id(part) not in holders:
                holders[id(part)] = []
                waiting.append(part)
                if part.used and not isinstance(part.value, dict):
                    marked.append(id(part))
            holders[id(part)].append(id(node))
    used: set[int] = set()
    while marked:
        if (mark := marked.pop()) not in used:
            used.add(mark)
            marked.extend(holders[mark])
    return used


def parts(node: Node) -> list[Node]:
    """The nodes that a node holds."""
    if isinstance(node.value, dict):
        return list(node.value.values())
    return node.value if isinstance(node.value, list) else []
