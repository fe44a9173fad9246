"""Searching a checkpoint for networks: under which key, and after which prefix of their names.

Training code wraps a network in other modules, and saves several state dicts in one file. So any
nested mapping may be a state dict, and wherever a name ends in a layout's name of the stem's
weight, what stands before it may be the prefix of a network. The work is linear in the number of
names, since nesting and prefixes are bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from hierarch.errors import WeightsError
from hierarch.report.weights import Location
from hierarch.weights.layout import Layout
from hierarch.weights.pickles import Array

MAX_NESTING = 3
"""The maximal number of keys that lead to a state dict."""
MAX_PREFIX = 8
"""The maximal number of modules in a prefix; "module.backbone." has two."""
MAX_STEMS = 1000
"""The maximal number of names in a file that may be those of a stem's weight."""

PREFERENCES = (
    # timm's load_state_dict: averaged weights first
    ("state_dict_ema", "model_ema", "state_dict", "model"),
    # mmengine's EMAHook saves the averaged weights as state_dict
    ("state_dict", "ema_state_dict"),
    # DINO's and EsViT's evaluation: --checkpoint_key teacher
    ("teacher", "student"),
    # the encoder that gradients train, of MoCo v3, MoCo v1 and v2, and MoBY
    ("base_encoder", "momentum_encoder"),
    ("encoder_q", "encoder_k"),
    ("encoder", "encoder_k"),
)
"""Names of keys or modules that hold versions of one network, preferred ones first."""


Path = tuple[str, ...]
"""The keys that lead from a file's own mapping to one inside it."""
Found = dict[Location, list[Layout]]
"""The locations of networks, and the layouts that recognize each."""


def find(
    entries: Mapping[Any, Any], layouts: Sequence[Layout], key: str | None, prefix: str | None
) -> Found:
    """The networks in a file that one of the layouts recognizes, those under fewer keys first.

    `key` and `prefix` restrict the search. Raises `WeightsError` if more than `MAX_STEMS` names
    may be those of a stem.
    """
    found: Found = {}
    stems = 0
    for path, mapping in state_dicts(entries, key):
        for before, fitting, names in names_by_prefix(tensors_of(mapping), layouts, prefix):
            stems += 1
            if stems > MAX_STEMS:
                raise WeightsError(
                    f"more than {MAX_STEMS} networks may stand in the checkpoint; choose one with "
                    "key= and prefix="
                )
            spelled = ((layout, layout.spell(names).values()) for layout in fitting)
            recognized = [layout for layout, keys in spelled if layout.recognizes({*keys})]
            if recognized:
                found[Location(path, before)] = recognized
    if key is not None:
        exact = {place: fits for place, fits in found.items() if place.key == key}
        return exact if exact or not key else found
    return found


def preferred(locations: Sequence[Location]) -> Location | None:
    """The location that is preferred to each of the others; None if there is none."""
    best = locations[0]
    for location in locations:
        if _is_preferred(location, best):
            best = location
    others = [location for location in locations if location != best]
    return best if all(_is_preferred(best, other) for other in others) else None


def _is_preferred(one: Location, other: Location) -> bool:
    """True if `PREFERENCES` say so, or if they say nothing and `other` is inside of `one`.

    Of a network and another in one of its submodules, `load_state_dict` would take the outer one.
    """
    for names in PREFERENCES:
        first, second = (
            min((names.index(part) for part in location.parts if part in names), default=-1)
            for location in (one, other)
        )
        if -1 not in (first, second) and first != second:
            return first < second
    return len(one.parts) < len(other.parts) and other.parts[: len(one.parts)] == one.parts


def state_dicts(
    entries: Mapping[Any, Any], key: str | None = None
) -> Iterator[tuple[Path, Mapping[Any, Any]]]:
    """(path, mapping) of each distinct mapping in a file, those with shorter paths first.

    `key`, a path joined by dots, restricts them to the mapping there and those inside of it.
    """
    path = _path(entries, key) if key else ()
    level = [] if path is None else [(path, at(entries, path))]
    seen = {id(mapping) for _, mapping in level}
    for _ in range(MAX_NESTING + 1):
        yield from level
        inner = []
        for path, mapping in level:
            for name, value in mapping.items():
                if isinstance(name, str) and isinstance(value, Mapping) and id(value) not in seen:
                    seen.add(id(value))
                    inner.append(((*path, name), value))
        level = inner


def at(entries: Mapping[Any, Any], path: Path) -> Mapping[Any, Any]:
    """The mapping at a path that exists."""
    for name in path:
        entries = entries[name]
    return entries


def _path(entries: Mapping[Any, Any], key: str) -> Path | None:
    """The path that `key` joins by dots, or None; its names may have dots of their own."""
    if isinstance(entries.get(key), Mapping):
        return (key,)
    for dot in (i for i, character in enumerate(key) if character == "."):
        inner = entries.get(key[:dot])
        if isinstance(inner, Mapping) and (rest := _path(inner, key[dot + 1 :])):
            return key[:dot], *rest
    return None


def tensors_of(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The named tensors of a mapping, those of numpy arrays among them."""
    values = (
        (k, getattr(v, "tensor", v) if isinstance(v, Array) else v) for k, v in mapping.items()
    )
    return {k: v for k, v in values if isinstance(k, str) and isinstance(v, Tensor)}


def names_by_prefix(
    names: Collection[str], layouts: Sequence[Layout], prefix: str | None
) -> Iterator[tuple[str, list[Layout], list[str]]]:
    """(prefix, layouts, names): prefixes before a stem, the layouts that have a stem of this name,
    and the names after the prefix. `prefix` restricts them to that one."""
    stems = [(layout, layout.stems) for layout in layouts]
    fitting: dict[str, list[Layout]] = {}
    if prefix is not None:
        fits = [layout for layout, own in stems if any(prefix + stem in names for stem in own)]
        if fits:
            yield prefix, fits, [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        return
    every = tuple({stem for _, own in stems for stem in own})
    for name in names:
        if name.endswith(every):
            for layout, own in stems:
                before = _before(name, own)
                if before is not None and before.count(".") <= MAX_PREFIX:
                    fitting.setdefault(before, []).append(layout)
    inside: dict[str, list[str]] = {before: [] for before in fitting}
    for name in names:
        start = 0
        for _ in range(MAX_PREFIX + 1):
            if name[:start] in inside:
                inside[name[:start]].append(name[start:])
            start = name.find(".", start) + 1
            if not start:
                break
    for before, layouts_there in fitting.items():
        yield before, layouts_there, inside[before]


def _before(name: str, stems: Sequence[str]) -> str | None:
    """What stands in a name before the first stem that it ends in: "", or a prefix; else None."""
    for stem in stems:
        before = name.removesuffix(stem)
        if before != name and (not before or before.endswith(".")):
            return before
    return None
