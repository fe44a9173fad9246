"""Replacing a part, such as the token mixer, in some stages or in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from hierarch.errors import SpecError
from hierarch.spec.backbone import BackboneSpec, StageSpec
from hierarch.spec.base import nearest, plain, shown
from hierarch.spec.fields import yaml
from hierarch.spec.load import Source, load, override
from hierarch.spec.match import Match
from hierarch.spec.parts import KINDS, Part
from hierarch.spec.registry import get, names

New = str | Mapping[str, Any] | Part
"""A new part: its name, a mapping that sets fields as well, or its spec."""


Origin = Literal["given", "carried over", "at its default", "dropped"]


@dataclass(frozen=True)
class FieldChange:
    """The origin of a field's values in the new part, or that it was dropped.

    >>> from hierarch.swapping import explain
    >>> explain("swin_tiny", "window_mlp").changes[0]
    FieldChange(field='head_dim', origin='carried over', values=(32,))
    """

    field: str
    origin: Origin
    values: tuple[Any, ...]
    """The distinct values in the swapped places, as plain data."""


@dataclass(frozen=True)
class Swap:
    """A swapped spec, and the origin of the fields of its new parts.

    >>> from hierarch.swapping import explain
    >>> explain("swin_tiny", "window_mlp").notes[0]
    'carried over: head_dim=32, window_size=7, shift_size=0 / 3, small_map=pad'
    """

    spec: BackboneSpec
    part: str
    """The kind of part, which is the field's name in the spec."""
    places: tuple[int | None, ...]
    """The stages with a new part; None means the top level."""
    changes: tuple[FieldChange, ...]
    joined: int = 0
    """Length of a cycle of mixers that became a single one, since all are equal; else 0."""
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


def explain(
    source: Source, new: New, stages: Sequence[int] | None = None, *, part: str = "mixer"
) -> Swap:
    """Swap a part as `hierarch.swap` does without a budget, and say where each field's value comes
    from."""
    spec = load(source)
    last = len(spec.stages) - 1
    if stages is not None and not all(0 <= stage <= last for stage in stages):
        raise SpecError(f"stages {list(stages)}: {spec.name} has stages 0 to {last}")
    if part not in KINDS:
        raise SpecError(f"unknown kind of part {shown(part)}, {nearest(part, KINDS)}")
    if stages is not None and part not in StageSpec.model_fields:
        raise SpecError(f"a {part} is the network's, and no stage's: leave the stages out")
    cls, given = _target(part, new)
    carrying = _Carrying(cls, given)
    values: dict[int | None, Any] = {}
    for place, old in _places(spec, part, stages).items():
        dims = [stage.dim for i, stage in enumerate(spec.stages) if place in (None, i)]
        if not isinstance(old, tuple):
            values[place] = carrying.entry(old, dims)
            continue
        cycle = [carrying.entry(mixer, dims) for mixer in old]
        alike = all(entry == cycle[0] for entry in cycle)
        values[place] = cycle[:1] if alike else cycle
        if alike and len(cycle) > 1:
            carrying.joined = len(cycle)
    changes: dict[str, Any] = {
        "stages": [
            dict(stage) | {part: values[i]} if i in values else stage
            for i, stage in enumerate(spec.stages)
        ]
    }
    if None in values:
        changes[part] = values[None]
    swapped = override(spec, changes)
    return Swap(swapped, part, tuple(values), carrying.changes(), carrying.joined)


def _target(part: str, new: New) -> tuple[type[Part], dict[str, Any]]:
    """The spec class of the new part, and its given fields."""
    if isinstance(new, Part):
        fields = sorted(new.model_fields_set - {"type"})
        return type(new), {name: getattr(new, name) for name in fields}
    given = {"type": new} if isinstance(new, str) else dict(new)
    name = given.pop("type", None)
    if not isinstance(name, str):
        raise SpecError(f"the new {part} has no type; known: {', '.join(names(part))}")
    try:
        return get(part, name), given
    except KeyError as error:
        raise SpecError(str(error.args[0])) from None


def _places(
    spec: BackboneSpec, part: str, stages: Sequence[int] | None
) -> dict[int | None, Part | tuple[Part, ...]]:
    """What is swapped, by stage; None is the top level, only if all stages are swapped."""
    top = getattr(spec, part)
    places: dict[int | None, Part | tuple[Part, ...]] = {}
    if stages is None and top:
        places[None] = top
    for i, stage in enumerate(spec.stages):
        own = getattr(stage, part, None)
        if stages is None and own:
            places[i] = own
        elif stages is not None and i in stages:
            if part == "downsample" and i == 0 and not own:
                raise SpecError("stage 0 has no downsampling to swap; give it one in the spec")
            places[i] = own or top
    return places


@dataclass
class _Carrying:
    """Carries fields over to a new type of part, and records each value's origin."""

    cls: type[Part]
    given: dict[str, Any]
    values: dict[tuple[Origin, str], list[Any]] = field(default_factory=dict)
    """The distinct values as plain data, by origin and field."""
    joined: int = 0

    def entry(self, old: Part, dims: Sequence[int]) -> dict[str, Any]:
        """The new part as plain data, with the fields that it shares with the old one."""
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
