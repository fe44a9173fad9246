"""Which network a checkpoint holds: in which layout, under which key, after which prefix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hierarch.errors import WeightsError
from hierarch.report.weights import Location
from hierarch.weights.files import Checkpoint, listed
from hierarch.weights.layout import Layout
from hierarch.weights.names import from_theirs
from hierarch.weights.registry import get_layouts
from hierarch.weights.search import at, find, preferred, state_dicts, tensors_of

DERIVED_BUFFERS = re.compile(
    r"(^|\.)(relative_position_index|relative_coords_table|attn_mask|num_batches_tracked)$"
)
"""Buffers in published checkpoints that follow from the spec, or that nothing computes with: they
are ignored."""

MAX_SHOWN = 100
"""Characters of a name."""


@dataclass(frozen=True)
class Recognized:
    """A checkpoint's tensors under the names that the rows of its layout have for them."""

    layout: Layout
    tensors: dict[str, Tensor]
    original: dict[str, str]
    """The names of the tensors in the checkpoint."""
    location: Location
    candidates: tuple[Location, ...]
    """Where other networks stand in the checkpoint."""
    others: tuple[str, ...]
    """What else the checkpoint holds, by name: other keys, and names without the prefix."""
    name: str = ""
    """The file's name without its suffix."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def ours(self) -> dict[str, Tensor]:
        """The network's weights under our names.

        Raises `WeightsError` if one of several tensors that make up a weight is missing, or if
        they do not fit together.
        """
        links, _ = from_theirs(self.layout.rows, self.tensors)
        weights: dict[str, Tensor] = {}
        for link in links:
            if missing := [name for name in link.theirs if name not in self.tensors]:
                raise WeightsError(f"the checkpoint lacks {listed('parts', missing).strip()}")
            weights |= dict(zip(link.ours, self.converted(link.ours, link.theirs), strict=True))
        return weights

    def converted(self, ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[Tensor]:
        """The tensors of one link, converted to ours. Raises `WeightsError` for odd shapes."""
        links, _ = from_theirs(self.layout.rows, theirs)
        given = [self.tensors[name] for name in theirs]
        try:
            return list(links[0].conversion.to_ours(given))
        except (RuntimeError, ValueError, IndexError):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in given)
            raise WeightsError(f"{ours[0]} cannot be made of {shapes}") from None


def recognize(
    checkpoint: Checkpoint,
    layout: str = "auto",
    *,
    key: str | None = None,
    prefix: str | None = None,
) -> Recognized:
    """Find the network in a checkpoint; `layout` is "auto", a library's name, or "timm:swin".

    Raises `WeightsError` if there is none, or none under `key` and after `prefix`; if several are
    equally likely, naming where they stand; and if several layouts recognize it.
    """
    layouts = get_layouts(None if layout == "auto" else layout)
    if prefix and not prefix.endswith("."):
        prefix += "."
    found = find(checkpoint.entries, layouts, key, prefix)
    if not found:
        return _without_match(checkpoint, layouts, key, prefix)
    location = preferred([*found])
    if location is None:
        raise WeightsError(
            f"several networks fit: {_shown([*found])}; choose one by key= or prefix="
        )
    if len(found[location]) > 1:
        names = " and ".join(candidate.name for candidate in found[location])
        raise _which_layout(names, checkpoint, location)
    others = tuple(candidate for candidate in found if candidate != location)
    return _take(checkpoint, found[location][0], location, others)


def _take(
    checkpoint: Checkpoint, layout: Layout, location: Location, candidates: tuple[Location, ...]
) -> Recognized:
    """The tensors at a location. Raises `WeightsError` if two are the same weight."""
    mapping = at(checkpoint.entries, location.path)
    tensors = tensors_of(mapping)
    prefix = location.prefix
    inside = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    spelled = layout.spell(inside)
    uses = Counter(spelled.values())
    if twice := [inside[name] for name, key in spelled.items() if uses[key] > 1]:
        raise WeightsError(f"one weight has several names: {listed('seen', twice).strip()}")
    original = {key: inside[name] for name, key in spelled.items()}
    return Recognized(
        layout,
        {key: tensors[name] for key, name in original.items()},
        original,
        location,
        candidates,
        others=(*_outside(checkpoint, location), *_rest(mapping, {*inside.values()})),
        name=checkpoint.name,
        metadata=checkpoint.metadata,
    )


def _outside(checkpoint: Checkpoint, location: Location) -> list[str]:
    """The keys of a file that do not lead to a location."""
    names: list[str] = []
    for i, key in enumerate(location.path):
        names += _rest(at(checkpoint.entries, location.path[:i]), {key})
    return names


def _rest(mapping: Mapping[Any, Any], taken: set[str]) -> list[str]:
    return [str(key)[:MAX_SHOWN] for key in mapping if key not in taken]


def _without_match(
    checkpoint: Checkpoint, layouts: Sequence[Layout], key: str | None, prefix: str | None
) -> Recognized:
    """The largest state dict in a layout that was asked for by name, though its keys lack some.

    Raises `WeightsError` if several layouts were possible, or if `key` or `prefix` are wrong.
    """
    if key is not None or prefix is not None:
        elsewhere = find(checkpoint.entries, layouts, None, None)
        if elsewhere:
            options = {"key": key, "prefix": prefix}
            asked = [f"{n}={ascii(v)[:MAX_SHOWN]}" for n, v in options.items() if v is not None]
            raise WeightsError(
                f"no network stands under {' '.join(asked)}; there is {_shown([*elsewhere])}"
            )
    sizes = {path: len(tensors_of(inner)) for path, inner in state_dicts(checkpoint.entries, key)}
    largest = max(sizes, key=lambda path: sizes[path], default=())
    if not sizes.get(largest):
        names = listed("no named tensors", [str(name) for name in checkpoint.entries]).strip()
        raise WeightsError(f"not a state dict: {names or 'it is empty'}")
    location = Location(largest, prefix or "")
    if len(layouts) > 1:
        libraries = ", ".join(dict.fromkeys(layout.library for layout in layouts))
        raise _which_layout(f"no layout of {libraries}", checkpoint, location)
    return _take(checkpoint, layouts[0], location, ())


def _which_layout(fitting: str, checkpoint: Checkpoint, location: Location) -> WeightsError:
    names = [*tensors_of(at(checkpoint.entries, location.path))]
    return WeightsError(f"which layout? The keys fit {fitting}; {listed('seen', names).strip()}")


def _shown(locations: Sequence[Location]) -> str:
    more = [f"{len(locations) - 8} more"] if len(locations) > 8 else []
    return " and ".join([*map(str, locations[:8]), *more])
