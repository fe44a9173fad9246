"""The fields of a spec class as data: name, type, default and description."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hierarch.spec.base import Spec, plain

OWN = {
    "ArmSpec": "arm",
    "StageSpec": "stage",
    "HeadSpec": "head",
    "OptimizerRecipe": "optimizer",
    "ScheduleRecipe": "schedule",
    "AugmentRecipe": "augmentation",
    "MixRecipe": "mix",
    "EvaluateRecipe": "evaluation",
}
"""Names in documentation of classes that are written as a mapping without a `type`."""


@dataclass(frozen=True)
class FieldInfo:
    """One field of a spec class.

    >>> from hierarch.report import mixer_listing
    >>> pooling = next(mixer for mixer in mixer_listing().mixers if mixer.name == "pooling")
    >>> [(field.name, field.type, field.default) for field in pooling.fields][:1]
    [('kernel_size', 'integer, 1 to 63', 3)]
    """

    name: str
    type: str
    """The allowed values, in words: "integer, 1 to 64, or [height, width]"."""
    required: bool
    default: Any
    """Plain data, as in YAML; None if the field is required, or if null is the default."""
    description: str

    def to_data(self) -> dict[str, Any]:
        return asdict(self)


def describe(
    cls: type[Spec], properties: dict[str, Any], *, quote: Callable[[str], str] = str
) -> list[FieldInfo]:
    """Every field of a spec class, in order.

    `properties` is the class's part of `hierarch.schema()`. `quote` is applied to each literal
    value, for example to mark it up as code.
    """
    return [
        FieldInfo(
            name=name,
            type=values(properties[name], quote),
            required=field.is_required(),
            default=None
            if field.is_required()
            else plain(field.get_default(call_default_factory=True)),
            description=" ".join((field.description or "").split()),
        )
        for name, field in cls.model_fields.items()
    ]


def values(node: dict[str, Any], quote: Callable[[str], str] = str) -> str:
    """The values that a node of the JSON Schema allows, in words.

    >>> values({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}]})
    'integer, 1 to 9, or null'
    """
    match node:
        case {"$ref": ref}:
            name = ref.removeprefix("#/$defs/")
            name = OWN.get(name, name)
            return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
        case {"const": value}:
            return quote(str(value))
        case {"enum": choices}:
            return either(map(quote, choices))
        case {
            "anyOf": [
                {"type": "integer"} as one,
                {"type": "array", "maxItems": 2 | 3 as axes},
                *rest,
            ]
        }:
            each = ("" if axes == 2 else "one per axis: ") + quote("[height, width]")
            return ", or ".join([values(one), each, *(values(other, quote) for other in rest)])
        case {"anyOf": choices}:
            return ", or ".join(values(choice, quote) for choice in choices)
        case {"type": "array", "prefixItems": [first, *rest]}:
            return f"a list of {1 + len(rest)}, each {values(first)}"
        case {"type": "array", "items": {"type": "number" | "integer"} | {"enum": _} as item}:
            return f"a list, each {values(item, quote)}"
        case {"type": "array", "items": item}:
            return f"a list of {values(item, quote).removeprefix('an ').removeprefix('a ')}s"
        case {"type": "integer" | "number" as kind}:
            return ", ".join([kind, *_bounds(node)])
        case {"type": "boolean"}:
            return either([quote("true"), quote("false")])
        case {"type": "null"}:
            return quote("null")
        case {"type": "object"}:
            return "a mapping"
        case _:
            return "text"


def yaml(value: Any) -> str:
    """Plain data as one line of YAML.

    >>> yaml([True, None, {"type": "gelu"}])
    '[true, null, {type: gelu}]'
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(yaml, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {yaml(item)}' for key, item in value.items())}}}"
        case _:
            return str(value)


def _bounds(node: dict[str, Any]) -> list[str]:
    match node:
        case {"minimum": low, "maximum": high}:
            return [f"{low} to {high}"]
        case {"exclusiveMinimum": low, "maximum": high}:
            return [f"over {low}", f"up to {high}"]
        case {"exclusiveMinimum": low, "exclusiveMaximum": high}:
            return [f"over {low}", f"under {high}"]
        case {"minimum": low, "exclusiveMaximum": high}:
            return [f"from {low}", f"under {high}"]
        case _:
            return []


def either(words: Iterable[str], last: str = " or ") -> str:
    """A list in words.

    >>> either(["a", "b", "c"])
    'a, b or c'
    """
    *first, end = words
    return f"{', '.join(first)}{last}{end}" if first else end
