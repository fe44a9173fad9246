"""Replacing the token mixer of some stages, or of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from hierarch.errors import SpecError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import plain
from hierarch.spec.fields import yaml
from hierarch.spec.load import Source, load, override
from hierarch.spec.match import Match
from hierarch.spec.parts import MixerSpec, Part
from hierarch.spec.registry import get, names

Mixer = str | Mapping[str, Any] | MixerSpec


Origin = Literal["given", "carried over", "at its default", "dropped"]


@dataclass(frozen=True)
class FieldChange:
    """The origin of a field's values in the new mixer, or that it was dropped."""

    field: str
    origin: Origin
    values: tuple[Any, ...]
    """The distinct values in the swapped entries, as plain data."""


@dataclass(frozen=True)
class Swap:
    """A swapped spec, and the origin of the fields of its new mixers."""

    spec: BackboneSpec
    places: tuple[int | None, ...]
    """The stages with a new cycle; None means the top level."""
    changes: tuple[FieldChange, ...]
    joined: int = 0
    """Length of a cycle that became a single entry, since its entries are equal; else 0."""
    match: Match | None = None
    """How the budget was met, where there is one."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The changes as text, one line per origin."""
        lines: dict[str, list[str]] = {origin: [] for origin in get_args(Origin)}
        for change in self.changes:
            values = " / ".join(map(yaml, change.values))
            shown = change.field if change.origin == "dropped" else f"{change.field}={values}"
            lines[change.origin].append(shown)
        if self.joined:
            lines["one entry for a cycle of"] = [str(self.joined)]
        fields = (f"{origin}: {', '.join(shown)}" for origin, shown in lines.items() if shown)
        return (*fields, *(self.match.notes if self.match else ()))


def explain(source: Source, mixer: Mixer, stages: Sequence[int] | None = None) -> Swap:
    """Swap the token mixer as `hierarch.swap` does without a budget, and say where each field's
    value comes from."""
    spec = load(source)
    last = len(spec.stages) - 1
    if stages is not None and not all(0 <= stage <= last for stage in stages):
        raise SpecError(f"stages {list(stages)}: {spec.name} has stages 0 to {last}")
    cls, given = _target(mixer)
    carrying = _Carrying(cls, given)
    new: dict[int | None, list[dict[str, Any]]] = {}
    for place, cycle in _cycles(spec, stages).items():
        dims = [stage.dim for i, stage in enumerate(spec.stages) if place in (None, i)]
        entries = [carrying.entry(old, dims) for old in cycle]
        alike = all(entry == entries[0] for entry in entries)
        new[place] = entries[:1] if alike else entries
        if alike and len(entries) > 1:
            carrying.joined = len(entries)
    changes: dict[str, Any] = {
        "stages": [
            dict(stage) | {"mixer": new[i]} if i in new else stage
            for i, stage in enumerate(spec.stages)
        ]
    }
    if None in new:
        changes["mixer"] = new[None]
    return Swap(override(spec, changes), tuple(new), carrying.changes(), carrying.joined)


def _target(mixer: Mixer) -> tuple[type[Part], dict[str, Any]]:
    """The spec class of the new mixer, and its given fields."""
    if isinstance(mixer, MixerSpec):
        fields = sorted(mixer.model_fields_set - {"type"})
        return type(mixer), {name: getattr(mixer, name) for name in fields}
    given = {"type": mixer} if isinstance(mixer, str) else dict(mixer)
    name = given.pop("type", None)
    if not isinstance(name, str):
        raise SpecError(f"the new mixer has no type; known: {', '.join(names('mixer'))}")
    try:
        return get("mixer", name), given
    except KeyError as error:
        raise SpecError(str(error.args[0])) from None


def _cycles(
    spec: BackboneSpec, stages: Sequence[int] | None
) -> dict[int | None, tuple[MixerSpec, ...]]:
    """The cycles to swap, by stage; None is the top level, only if all stages are swapped."""
    cycles: dict[int | None, tuple[MixerSpec, ...]] = {}
    if stages is None and spec.mixer:
        cycles[None] = spec.mixer
    for i, stage in enumerate(spec.stages):
        if stages is None and stage.mixer:
            cycles[i] = stage.mixer
        elif stages is not None and i in stages:
            cycles[i] = stage.mixer or spec.mixer or ()
    return cycles


@dataclass
class _Carrying:
    """Carries fields over to a new type of mixer, and records each value's origin."""

    cls: type[Part]
    given: dict[str, Any]
    values: dict[tuple[Origin, str], list[Any]] = field(default_factory=dict)
    """The distinct values as plain data, by origin and field."""
    joined: int = 0

    def entry(self, old: MixerSpec, dims: Sequence[int]) -> dict[str, Any]:
        """The new mixer as plain data, with the fields that it shares with the old one."""
        assert issubclass(self.cls, MixerSpec)
        declared = {
            k: None if f.is_required() else f.get_default(call_default_factory=True)
            for k, f in self.cls.model_fields.items()
            if k != "type"
        }
        one_of = self.cls.one_of
        excluded = self.given.keys() | (one_of if one_of & self.given.keys() else ())
        had = {
            k: value
            for k in type(old).model_fields
            if k != "type" and (value := getattr(old, k)) is not None
        }
        kept = {k: v for k, v in had.items() if k in declared and k not in excluded}
        chosen = kept | self.given
        if not one_of & chosen.keys():
            chosen = self.cls.defaults(dims) | chosen
        for name, value in (declared | chosen).items():
            if value is not None and name not in self.given:
                self._record("carried over" if name in kept else "at its default", name, value)
        for name in [name for name in had if name not in declared]:
            self._record("dropped", name, had[name])
        return {"type": self.cls.model_fields["type"].default, **chosen}

    def _record(self, origin: Origin, name: str, value: Any) -> None:
        values = self.values.setdefault((origin, name), [])
        if (data := plain(value)) not in values:
            values.append(data)

    def changes(self) -> tuple[FieldChange, ...]:
        given = [FieldChange(name, "given", (plain(value),)) for name, value in self.given.items()]
        rest = [
            FieldChange(name, origin, tuple(values))
            for (origin, name), values in self.values.items()
        ]
        return (*given, *sorted(rest, key=lambda change: get_args(Origin).index(change.origin)))
