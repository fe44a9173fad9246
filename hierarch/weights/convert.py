"""One library's checkpoint as another library's, tensor by tensor, without running a model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hierarch.building import build
from hierarch.errors import WeightsError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Pair
from hierarch.spec.load import Source as SpecSource
from hierarch.spec.load import load
from hierarch.weights.adapt import check_numbers, is_shaped
from hierarch.weights.export import needs_spec, renamed, save
from hierarch.weights.files import Checkpoint, Source, listed, read
from hierarch.weights.infer import infer_from
from hierarch.weights.names import from_theirs
from hierarch.weights.recognize import Recognized, recognize
from hierarch.weights.shapes import Untold

NORM = re.compile(r"(stages\.\d+\.)?norm\.")
"""Norms of maps, of which a network uses some."""


@dataclass(frozen=True)
class Conversion:
    """What was converted."""

    source_layout: str
    layout: str
    tensors: int
    """How many were written, buffers among them."""
    bytes: int
    ignored: tuple[str, ...]
    """Names in the source of what is no weight of the network, or can be worked out."""
    spec: BackboneSpec | None
    """None where it could not be told and was not needed."""
    assumed: tuple[str, ...]
    """What the weights do not tell of the spec, and what was taken for it."""


def convert_weights(
    source: Source,
    path: str | os.PathLike[str],
    *,
    layout: str,
    source_layout: str = "auto",
    spec: SpecSource | None = None,
    window_size: int | Pair | None = None,
) -> Conversion:
    """Write a checkpoint in another library's layout (`load_weights` has the names of layouts).

    The spec is worked out from the weights, as `infer` does it, unless it is given; it says which
    buffers belong there, and that no weight is missing. Raises `WeightsError` for a checkpoint
    that cannot be read or is not whole, and for a layout that has no name for some of it.
    """
    checkpoint = read(source)
    found = recognize(checkpoint.tensors, source_layout)
    known, assumed, like = _spec(checkpoint, found, spec, window_size, needed=needs_spec(layout))
    ours = found.ours()
    for name, tensor in ours.items():
        check_numbers(name, tensor)
    _check_whole(found, ours, like)
    tensors = renamed(ours, known, layout)
    save(path, tensors, known, layout)
    _, foreign = from_theirs(found.layout.rows, found.tensors)
    return Conversion(
        source_layout=found.layout.library,
        layout=layout,
        tensors=len(tensors),
        bytes=sum(tensor.nbytes for tensor in tensors.values()),
        ignored=(*(found.original[name] for name in foreign), *checkpoint.beside),
        spec=known,
        assumed=assumed,
    )


def _spec(
    checkpoint: Checkpoint,
    found: Recognized,
    given: SpecSource | None,
    window_size: int | Pair | None,
    *,
    needed: bool,
) -> tuple[BackboneSpec | None, tuple[str, ...], BackboneSpec]:
    """The network's spec, what is assumed in it, and one whose weights have the same shapes."""
    if given is not None:
        known = load(given)
        return known, (), known
    try:
        inferred = infer_from(checkpoint, found, window_size)
        return inferred.spec, inferred.assumed, inferred.spec
    except Untold as untold:
        if not needed and untold.like:
            return None, (), untold.like
        if not needed and untold.window:
            return None, (), infer_from(checkpoint, found, untold.window).spec
        raise WeightsError(f"{untold}; or give the spec") from None


def _check_whole(found: Recognized, ours: Mapping[str, Tensor], spec: BackboneSpec) -> None:
    """Raise `WeightsError` where a weight is missing, of another shape, or another network's."""
    with torch.device("meta"):
        wanted = build(spec).state_dict()
    missing = [name for name in wanted if name not in ours]
    # transformers' Backbone holds a last norm besides those of its outputs
    left = [name for name in ours if name not in wanted and not NORM.match(name)]
    if missing or left:
        seen = f"{listed('missing', missing)}{listed('left over', left)}".strip()
        raise WeightsError(f"the {found.layout.library} checkpoint is no whole {spec.name}: {seen}")
    for name, like in wanted.items():
        if not is_shaped(name, ours[name].shape, like):
            found_shape = tuple(ours[name].shape)
            raise WeightsError(f"{name} should have shape {(*like.shape,)}, got {found_shape}")
