"""From YAML text to plain data, with line and column of each value.

Tags never construct objects: the text is parsed to a graph of nodes, from which mappings, lists and
scalars are made here. Size, depth and number of nodes (with aliases expanded) are bounded, so that
parsing takes bounded time and memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hierarch.errors import Problem, SpecError
from hierarch.spec.base import shown

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_NODES = 100_000

Path = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, from 1."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null")}


@dataclass(frozen=True)
class Kind:
    """What a document holds, as errors call it."""

    word: str
    needs: str
    """What a mapping should have at least."""
    folder: str
    """Where the library's own documents of this kind are."""

    @property
    def wanted(self) -> str:
        return f"a {self.word} is a mapping with at least {self.needs}"


SPEC = Kind("spec", "`stages`", "specs")


@dataclass
class Document:
    """The plain data of a text, and line and column of each value and key."""

    data: Any
    places: dict[Path, Place] = field(default_factory=dict)
    source: str = ""

    def place(self, path: Path) -> Place:
        """Line and column of a path, or of its nearest parent; (0, 0) if there is no text."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (0, 0))


def parse(text: str, *, source: str = "", kind: Kind = SPEC) -> Document:
    """Read one YAML document. Raises `SpecError`, with line and column."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 1024} kB; this is no {kind.word}"
        raise SpecError(message, source=source)
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except RecursionError:
        message = f"is nested too deeply; this is no {kind.word}"
        raise SpecError(message, source=source) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = Problem(
            _explain(error, kind),
            line=mark.line + 1 if mark else 0,
            column=mark.column + 1 if mark else 0,
        )
        raise SpecError([problem], source=source) from None
    except (YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"is not YAML text: {reason}", source=source) from None
    if root is None:
        raise SpecError(f"is empty; {kind.wanted}", source=source)
    document = Document(None, source=source)
    document.data = _Reader(yaml, document).read(root, (), 1)
    return document


def _explain(error: MarkedYAMLError, kind: Kind) -> str:
    problem = str(error.problem)
    if "\\t" in problem:
        return "a tab; YAML indents with spaces"
    if "another document" in problem:
        return f"a second document; a file holds one {kind.word}"
    context = f" ({error.context})" if error.context else ""
    return f"not YAML: {problem}{context}"


class _Reader:
    """Converts nodes to data, recursively; a node with aliases is read once per alias."""

    def __init__(self, yaml: YAML, document: Document) -> None:
        self.yaml = yaml
        self.document = document
        self.nodes = 0

    def read(self, node: Node, path: Path, depth: int) -> Any:
        self.nodes += 1
        self.document.places.setdefault(path, _place(node))
        if depth > MAX_DEPTH:
            raise self.error(node, path, "nested too deeply (or an alias inside of itself)")
        if self.nodes > MAX_NODES:
            raise self.error(node, path, "more values than any spec has (do aliases repeat it?)")
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return dict(self.items(node, path, depth))
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        raise self.error(node, path, f"the tag {_shown(node)} is not allowed; write a plain value")

    def items(self, node: MappingNode, path: Path, depth: int) -> Iterator[tuple[Any, Any]]:
        seen: dict[Any, Place] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise self.error(key_node, path, "a key should be a plain name")
            self.scalar(key_node, path)  # rejects tags and merge keys
            key: str = key_node.value  # keys are names: 1 and null are strings here
            line, column = _place(key_node)
            here = (*path, key)
            if key in seen:
                message = f"duplicate key {shown(key)}, first in line {seen[key][0]}"
                raise self.error(key_node, here, message)
            seen[key] = line, column
            self.document.places[(*here, KEY)] = line, column
            yield key, self.read(value_node, here, depth + 1)

    def scalar(self, node: ScalarNode, path: Path) -> Any:
        if node.tag == _TAG + "timestamp":
            return node.value
        if node.tag == _TAG + "merge":
            raise self.error(node, path, "merge keys (<<) are not part of YAML 1.2; write them out")
        if node.tag not in _SCALARS:
            raise self.error(
                node, path, f"the tag {_shown(node)} is not allowed; write a plain value"
            )
        try:
            return self.yaml.constructor.construct_object(node)
        except (ValueError, LookupError, YAMLError):  # `!!int x`, `!!bool x`, 5,000 digits
            message = f"{shown(node.value)} is no number, or none that can be read"
            raise self.error(node, path, message) from None

    def error(self, node: Node, path: Path, message: str) -> SpecError:
        line, column = _place(node)
        problem = Problem(message, written(path[:6]), line, column)
        return SpecError([problem], source=self.document.source)


KEY = "\0key"
"""Last element of the path of a key, as opposed to that of its value."""


def written(path: Path) -> str:
    """A path as text: stages[2].mixer[0].window_size."""
    keys = (f"[{key}]" if isinstance(key, int) else f".{key[:80]}" for key in path)
    return "".join(keys).removeprefix(".")


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _shown(node: Node) -> str:
    return str(node.tag).replace(_TAG, "!!")[:60]
