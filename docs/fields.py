"""The tables of fields in spec.md, from the library's own schema and docstrings."""

import re
from typing import Any

from pydantic_core import PydanticUndefined

import hierarch
from hierarch.spec import registry
from hierarch.spec.backbone import AbsolutePositionSpec
from hierarch.spec.base import Spec
from hierarch.spec.head import HeadSpec

BLOCK = re.compile(r"(<!-- fields: (?P<of>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

SPECS = (hierarch.BackboneSpec, hierarch.StageSpec, HeadSpec, AbsolutePositionSpec)
OWN = {"StageSpec": "stage", "HeadSpec": "head", "AbsolutePositionSpec": "position embedding"}
"""What is named by its field alone, without a type that is looked up."""


def filled(document: str) -> str:
    """A document with a table between "<!-- fields: NAME -->" and "<!-- end -->".

    NAME is a class of a spec, or a kind of part: then each built-in part of it has a section.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n{_block(found['of'])}\n\n{found[3]}", document)


def _block(of: str) -> str:
    schema = hierarch.schema()
    for cls in SPECS:
        if cls.__name__ == of:
            return _table(cls, schema if cls is hierarch.BackboneSpec else schema["$defs"][of])
    return "\n\n".join(_part(of, name, schema["$defs"][f"{of}.{name}"]) for name in builtin(of))


def builtin(kind: str) -> list[str]:
    """The names of the library's own parts of a kind."""
    every = registry.names(kind)
    return [n for n in every if registry.get(kind, n).__module__.startswith("hierarch.")]


def _part(kind: str, name: str, schema: dict[str, Any]) -> str:
    cls = registry.get(kind, name)
    heading = f"### `{name}`\n\n{schema['description']}\n\n- Paper: {cls.paper}."
    pieces = [f"{heading}\n- MACs: {cls.formula}."]
    if one_of := sorted(getattr(cls, "one_of", ())):
        pieces.append(f"Give exactly one of {_either(one_of, ' and ')}.")
    table = _table(cls, schema, without="type")
    pieces.append(table if len(cls.model_fields) > 1 else "It has no fields.")
    return "\n\n".join(pieces)


def _table(cls: type[Spec], schema: dict[str, Any], *, without: str = "") -> str:
    rows = [
        (f"`{name}`", _values(schema["properties"][name]), _default(cls, name), field.description)
        for name, field in cls.model_fields.items()
        if name != without
    ]
    header = [("field", "values", "default", "what it says"), ("---",) * 4]
    return "\n".join(f"| {' | '.join(map(_in_a_cell, row))} |" for row in [*header, *rows])


def _in_a_cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", r"\|")


def _default(cls: type[Spec], name: str) -> str:
    default = cls.model_fields[name].get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "the top level's" if cls is hierarch.StageSpec else "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default.to_data() if isinstance(default, Spec) else default}`"


def _values(node: dict[str, Any]) -> str:
    """The values that a schema allows, in words."""
    match node:
        case {"$ref": ref}:
            name = ref.removeprefix("#/$defs/")
            name = OWN.get(name, name)
            return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return _either(values)
        case {"anyOf": [{"type": "integer"} as one, {"type": "array", "maxItems": 2}, *rest]}:
            return ", or ".join([_values(one), "`[height, width]`", *map(_values, rest)])
        case {"anyOf": choices}:
            return ", or ".join(map(_values, choices))
        case {"type": "array", "items": item}:
            return f"a list of {_values(item).removeprefix('an ').removeprefix('a ')}s"
        case {"type": "integer" | "number" as kind}:
            return ", ".join([kind, *_bounds(node)])
        case {"type": "boolean"}:
            return "`true` or `false`"
        case {"type": "null"}:
            return "`null`"
        case _:
            return "text"


def _bounds(node: dict[str, Any]) -> list[str]:
    match node:
        case {"minimum": low, "maximum": high}:
            return [f"{low} to {high}"]
        case {"exclusiveMinimum": low, "maximum": high}:
            return [f"over {low}", f"up to {high}"]
        case {"minimum": low, "exclusiveMaximum": high}:
            return [f"from {low}", f"under {high}"]
        case _:
            return []


def _either(values: list[Any], last: str = " or ") -> str:
    *first, end = (f"`{value}`" for value in values)
    return f"{', '.join(first)}{last}{end}" if first else end
