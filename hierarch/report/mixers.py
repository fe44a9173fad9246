"""The listing of all registered token mixers: fields with their defaults, cost and paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hierarch.report.formats import Block, Table
from hierarch.report.shown import Shown
from hierarch.spec.fields import FieldInfo, describe, either, yaml
from hierarch.spec.registry import get, names
from hierarch.spec.schema import schema


@dataclass(frozen=True)
class MixerEntry:
    """One mixer.

    >>> [pooling] = [mixer for mixer in mixer_listing().mixers if mixer.name == "pooling"]
    >>> pooling.summary()
    'kernel_size=3'
    """

    name: str
    """Its `type` in a spec."""
    description: str
    fields: tuple[FieldInfo, ...]
    one_of: tuple[str, ...]
    """Fields of which a spec gives exactly one."""
    formula: str
    """The claim for its MACs, in the paper's symbols."""
    paper: str

    def to_data(self) -> dict[str, Any]:
        return {
            "mixer": self.name,
            "description": self.description,
            "fields": [field.to_data() for field in self.fields],
            "one_of": list(self.one_of),
            "MACs": self.formula,
            "paper": self.paper,
        }

    def summary(self) -> str:
        """The fields in one line: `window_size=7`, `grid (required)`."""
        pieces = [
            f"{either(self.one_of)} (one is required)"
            if field.name in self.one_of
            else f"{field.name} (required)"
            if field.required
            else f"{field.name}={yaml(field.default)}"
            for field in self.fields
        ]
        return ", ".join(dict.fromkeys(pieces))


@dataclass(frozen=True)
class MixerListing(Shown):
    """What `hierarch mixers` prints.

    >>> from hierarch.report import text
    >>> text(mixer_listing(), "csv").splitlines()[0]
    'mixer,field,type,default,required,one_of,description,MACs,paper'
    """

    mixers: tuple[MixerEntry, ...]

    def to_data(self) -> list[dict[str, Any]]:
        """One mapping per mixer."""
        return [mixer.to_data() for mixer in self.mixers]

    def records(self) -> list[dict[str, Any]]:
        """One record per field; a mixer without fields has one record, with empty columns."""
        return [
            {
                "mixer": mixer.name,
                "field": field.name if field else "",
                "type": field.type if field else "",
                "default": yaml(field.default) if field and not field.required else "",
                "required": yaml(field.required) if field else "",
                "one_of": either(mixer.one_of) if field and field.name in mixer.one_of else "",
                "description": field.description if field else "",
                "MACs": mixer.formula,
                "paper": mixer.paper,
            }
            for mixer in self.mixers
            for field in mixer.fields or (None,)
        ]

    def blocks(self) -> list[Block]:
        """One table, with a row per mixer."""
        return [
            Table(
                [
                    {
                        "mixer": mixer.name,
                        "fields and defaults": mixer.summary(),
                        "MACs": mixer.formula,
                        "paper": mixer.paper,
                    }
                    for mixer in self.mixers
                ]
            )
        ]


def mixer_listing() -> MixerListing:
    """Every mixer that a spec can name, including those that other packages register.

    >>> "window_attention" in [mixer.name for mixer in mixer_listing().mixers]
    True
    """
    definitions = schema()["$defs"]
    return MixerListing(
        tuple(_entry(name, definitions[f"mixer.{name}"]) for name in names("mixer"))
    )


def _entry(name: str, definition: dict[str, Any]) -> MixerEntry:
    cls = get("mixer", name)
    described = describe(cls, definition["properties"])
    one_of: frozenset[str] = getattr(cls, "one_of", frozenset())
    return MixerEntry(
        name=name,
        description=" ".join(str(definition.get("description", "")).split()),
        fields=tuple(field for field in described if field.name != "type"),
        one_of=tuple(field.name for field in described if field.name in one_of),
        formula=cls.formula,
        paper=cls.paper,
    )
