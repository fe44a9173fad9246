"""`--set a.b=c`: values that are set in a spec's plain data before it is validated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hierarch.errors import SpecError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import shown
from hierarch.spec.parts import Part
from hierarch.spec.reader import MAX_DEPTH, parse

Assignment = tuple[list[str], Any]


def parse_assignment(text: str) -> Assignment:
    """`stages.2.depth=18` -> (["stages", "2", "depth"], 18). The value is YAML.

    Raises `SpecError` if the text has another form.

    >>> parse_assignment("stages.2.depth=18")
    (['stages', '2', 'depth'], 18)
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise SpecError(f"--set {text[:80]}: write it as path.to.field=value")
    values = parse(f"[{value.strip() or 'null'}]", source=f"--set {path[:80]}").data
    if len(values) != 1:
        raise SpecError(f"--set {path[:80]}: takes one value; write a list as [{value[:80]}]")
    return keys, values[0]


def assign(data: Any, assignments: Iterable[Assignment]) -> None:
    """Set each value in place. Without an index, it is set in every entry of a list.

    Raises `SpecError` for a path that does not exist.
    """
    for keys, value in assignments:
        if isinstance(data, dict) and len(keys) > 1 and keys[0] not in data:
            _write_default(data, keys[0])
        _assign(data, keys, value, ".".join(keys)[:80])


def _write_default(data: Any, key: str) -> None:
    """Write out the default of a part that is left out, so that its fields can be set."""
    if field := BackboneSpec.model_fields.get(key):
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Part):
            data[key] = default.to_data()


def _assign(node: Any, keys: list[str], value: Any, path: str) -> None:
    key, *rest = keys
    if isinstance(node, list) and not key.isdecimal():
        for i in range(len(node)):
            _assign(_opened(node, i), keys, value, path)
        return
    where: Any = key
    if isinstance(node, list):
        where = int(key[:9])
        if where >= len(node):
            raise SpecError(f"--set {path}: there is no entry {where}, the list has {len(node)}")
    elif not isinstance(node, dict):
        raise SpecError(f"--set {path}: {shown(node)} is a plain value, without a {shown(key)}")
    if rest:
        _assign(_opened(node, where), rest, value, path)
    else:
        node[where] = value


def _opened(node: Any, key: Any) -> Any:
    """The value at a key. A missing one, or a part's name, is replaced by a mapping first."""
    value = node[key] if isinstance(node, list) else node.get(key)
    if value is None or isinstance(value, str):
        node[key] = value = {} if value is None else {"type": value}
    return value
