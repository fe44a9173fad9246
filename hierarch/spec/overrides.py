"""`--set a.b=c`: values set from the command line in a spec's plain data, before it is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hierarch.errors import SpecError
from hierarch.spec.reader import parse

Assignment = tuple[list[str], Any]


def parse_assignment(text: str) -> Assignment:
    """`stages.2.depth=18` -> (["stages", "2", "depth"], 18). The value is YAML.

    Raises `SpecError` for what is no assignment.
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(f"--set {text[:80]}: write it as path.to.field=value")
    return keys, parse(f"[{value}]" if value.strip() else "[null]", source=f"--set {path}").data[0]


def assign(data: Any, assignments: Iterable[Assignment]) -> None:
    """Set each value in place. A list takes an index, or the rest of the path for each entry.

    Raises `SpecError` for a path that leads nowhere.
    """
    for keys, value in assignments:
        _assign(data, keys, value, ".".join(keys))


def _assign(node: Any, keys: list[str], value: Any, path: str) -> None:
    key, *rest = keys
    if isinstance(node, list):
        if not key.isdecimal():
            for i, entry in enumerate(node):
                if isinstance(entry, str):
                    node[i] = {"type": entry}
                _assign(node[i], keys, value, path)
            return
        index = int(key)
        if index >= len(node):
            raise SpecError(f"--set {path}: there is no entry {key}, the list has {len(node)}")
        if rest:
            _assign(node[index], rest, value, path)
        else:
            node[index] = value
        return
    if not isinstance(node, dict):
        raise SpecError(f"--set {path}: nothing to set {key!r} in, {node!r} is a plain value")
    if not rest:
        node[key] = value
        return
    if isinstance(node.get(key), str):
        node[key] = {"type": node[key]}
    _assign(node.setdefault(key, {}), rest, value, path)
