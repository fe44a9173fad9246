"""Writing a model's weights under another library's names."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from hierarch.building import Backbone
from hierarch.errors import WeightsError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.load import dump
from hierarch.weights.files import listed, write
from hierarch.weights.layouts import LAYOUTS, LIBRARIES, OWN, Layout
from hierarch.weights.layouts.base import no_buffers
from hierarch.weights.names import Link, from_ours


def export_weights(
    model: Backbone, path: str | os.PathLike[str] | None = None, *, layout: str = "hierarch"
) -> dict[str, Tensor]:
    """The model's weights as another library's own state dict, buffers included; written to a
    file (.safetensors, .pth, .pt, .bin) if there is a path.

    `layout` is "timm", "torchvision", "huggingface", "official", "mmdetection", or the library's
    own, "hierarch", which keeps the spec in the metadata of a .safetensors. Raises `WeightsError`
    for a network that the layout has no names for, and for a file that cannot be written.
    """
    tensors = renamed(model.state_dict(), model.spec, layout)
    if path is not None:
        save(path, tensors, model.spec, layout)
    return tensors


def save(
    path: str | os.PathLike[str],
    tensors: dict[str, Tensor],
    spec: BackboneSpec | None,
    layout: str,
) -> None:
    """Write what `renamed` made; our own layout keeps the spec beside it."""
    write(path, tensors, **({"spec": dump(spec)} if spec and layout == OWN.library else {}))


def renamed(
    ours: Mapping[str, Tensor], spec: BackboneSpec | None, library: str
) -> dict[str, Tensor]:
    """Our tensors under a library's names, with the buffers that its own state dict has."""
    layout, links = _choose(library, list(ours))
    theirs: dict[str, Tensor] = {}
    for link in links:
        given = [ours[name] for name in link.ours]
        try:
            theirs |= dict(zip(link.theirs, link.conversion.to_theirs(given), strict=True))
        except (RuntimeError, ValueError, IndexError):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in given)
            raise WeightsError(f"{link.theirs[0]} cannot be made of {shapes}") from None
    if spec:
        theirs = layout.buffers(spec) | theirs
    prefix = layout.prefix(theirs)
    return {n if n.startswith(layout.outside) else prefix + n: t for n, t in theirs.items()}


def needs_spec(library: str) -> bool:
    """Whether a library's state dict holds what the weights alone do not tell."""
    return any(layout.buffers is not no_buffers for layout in _layouts(library))


def _layouts(library: str) -> list[Layout]:
    known = [layout for layout in LAYOUTS if library in (layout.library, layout.name)]
    if not known:
        raise WeightsError(f"unknown layout {library[:80]!r}; known: {', '.join(LIBRARIES)}")
    return known


def _choose(library: str, names: list[str]) -> tuple[Layout, list[Link]]:
    """The library's layout that has a name for each of our weights."""
    attempts = [(layout, *from_ours(layout.rows, names)) for layout in _layouts(library)]
    layout, links, unknown = min(attempts, key=lambda attempt: len(attempt[2]))
    unknown += [name for link in links for name in link.ours if name not in names]
    if unknown:
        raise WeightsError(f"{layout.name} has no name for {listed('weights', unknown).strip()}")
    return layout, links
