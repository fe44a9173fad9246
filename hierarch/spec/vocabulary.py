"""What may stand at a path of a document, by its JSON Schema: for completion, without pydantic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A place in a document: what the schema allows there, and what the document has there."""

    root: Schema
    """The whole schema, which holds the definitions."""
    nodes: tuple[Schema, ...]
    """Nodes of the schema, any of which the place may be."""
    data: Any = None
    """What a document has here, or else the default; None if there is neither."""

    @property
    def description(self) -> str:
        """The first node's, in one line."""
        found = next((node["description"] for node in self.nodes if "description" in node), "")
        return " ".join(found.split())

    def options(self) -> Iterator[Schema]:
        """The nodes without references and choices."""
        pending = list(self.nodes)
        while pending:
            node = pending.pop(0)
            if "$ref" in node:
                pending.append(self.root["$defs"][node["$ref"].rpartition("/")[2]])
            elif "anyOf" in node:
                pending += node["anyOf"]
            else:
                yield node

    def fields(self) -> dict[str, Place]:
        """The places below this one, by key. Of parts, those of the document's; of all, if it
        says none. A list has the keys of its entries, as in `--set`, and their numbers."""
        below: dict[str, Place] = {}
        named = _types(self.data)
        parts = [name for option in self.options() for name in option.get("enum", ())]
        for option in self.options():
            tag = option.get("properties", {}).get("type", {}).get("const")
            if option.get("type") == "array" and "items" in option:
                entries = self.data if isinstance(self.data, list) else []
                for i, entry in enumerate(entries):
                    below[str(i)] = Place(self.root, (option["items"],), entry)
                every = Place(self.root, (option["items"],), entries or self.data)
                below = every.fields() | below
            elif not tag or not named or tag in named:
                for key, node in option.get("properties", {}).items():
                    # a part is another one by its type
                    nodes = ({"enum": parts, **node},) if key == "type" and parts else (node,)
                    before = below[key].nodes if key in below else ()
                    data = _at(self.data, key)
                    if data is None and isinstance(self.data, Mapping):
                        data = node.get("default")
                    below[key] = Place(self.root, (*before, *nodes), data)
        return below

    def ends(self) -> list[str]:
        """What may follow the key in a path: "." where there are fields, "=" where a value is."""
        fields = bool(self.fields())
        return ["."] * fields + ["="] * (not fields or bool(self.values()))

    def values(self) -> list[Any]:
        """Values that may stand here, as far as they can be listed: names, flags, and the number
        that stands here or is the default."""
        found: list[Any] = [self.data] if isinstance(self.data, str | int | float) else []
        found += [node["default"] for node in self.nodes if "default" in node]
        for option in self.options():
            found += option.get("enum", [option["const"]] if "const" in option else [])
            found += [True, False] * (option.get("type") == "boolean")
            found += [None] * (option.get("type") == "null")
        plain = [value for value in found if not isinstance(value, list | dict)]
        # True is 1 to Python
        return list({(type(value), value): value for value in plain}.values())


def _types(data: Any) -> set[str]:
    """The types of parts that plain data names: of a part, or of a list of them."""
    if isinstance(data, list):
        return {name for entry in data for name in _types(entry)}
    if isinstance(data, Mapping):
        data = data.get("type")
    return {data} if isinstance(data, str) else set()


def _at(data: Any, key: str) -> Any:
    """What plain data has at a key; of a list, what all its entries have there."""
    if isinstance(data, Mapping):
        return data.get(key)
    if isinstance(data, list):
        found = [_at(entry, key) for entry in data]
        return found[0] if found and all(value == found[0] for value in found) else None
    return None


def completed(place: Place, typed: str) -> list[tuple[str, str]]:
    """What `path.to.field=value` may become, of which a part is typed, with a description each.

    A path goes on with "." or "=". If there is only one way to go on, so do its own completions:
    a shell adds no blank then after what they have in common.
    """
    path, equals, value = typed.partition("=")
    *before, last = path.split(".")
    inner: Place | None = place
    for key in before:
        inner = inner.fields().get(key) if inner else None
    below = inner.fields() if inner else {}
    if equals:
        texts = map(_in_yaml, below[last].values() if last in below else [])
        return [(f"{path}={text}", "") for text in texts if text.startswith(value)]
    stem = path.removesuffix(last)
    found = [
        (f"{stem}{key}{end}", field.description)
        for key, field in below.items()
        if key.startswith(last)
        for end in field.ends()
    ]
    if len(found) != 1:
        return found
    further = completed(place, found[0][0])
    return further if found[0][0].endswith(".") else [*found, *further]


def _in_yaml(value: Any) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
