"""Saving a model's weights under another library's names."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from hierarch.building import Backbone
from hierarch.errors import WeightsError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.load import dump
from hierarch.weights.files import listed, write
from hierarch.weights.layout import STEM, Layout, no_buffers
from hierarch.weights.names import Link, from_ours
from hierarch.weights.registry import get_layouts

OWN = "hierarch"
"""The library's own layout."""


def export_weights(
    model: Backbone, path: str | os.PathLike[str] | None = None, *, layout: str = OWN
) -> dict[str, Tensor]:
    """The model's weights as another library's state dict, buffers included.

    They are also written to `path` (.safetensors, .pth, .pt, .bin), if there is one. `layout` is a
    library's name ("timm"); the library's own, "hierarch", keeps the spec in the metadata of a
    .safetensors.

    Raises `WeightsError` if the layout has no name for one of the model's weights, and if the file
    cannot be written.

    >>> from hierarch import build
    >>> mixer = {"type": "window_attention", "head_dim": 8}
    >>> stages = [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 2}]
    >>> model = build({"mixer": mixer, "stages": stages, "head": {"num_classes": 3}})
    >>> state = export_weights(model, "small.safetensors", layout="timm")
    >>> "layers.0.blocks.0.attn.qkv.weight" in state
    True
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
    """Write the tensors of `renamed`; in our own layout, the spec becomes metadata."""
    write(path, tensors, **({"spec": dump(spec)} if spec and layout == OWN else {}))


def renamed(
    ours: Mapping[str, Tensor], spec: BackboneSpec | None, library: str
) -> dict[str, Tensor]:
    """Our tensors under a library's names, and its buffers if there is a spec.

    Raises `WeightsError` if the library has no name for one of them, or for odd shapes.
    """
    axes = ours[STEM].ndim - 2 if STEM in ours else 2
    layout, links = _choose(library, ours, axes)
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
    names = layout.written(theirs)
    return {names[key]: tensor for key, tensor in theirs.items()}


def needs_spec(library: str) -> bool:
    """True if a library's state dict has buffers that the weights alone do not determine."""
    return any(layout.buffers is not no_buffers for layout in get_layouts(library))


def _choose(library: str, ours: Mapping[str, Tensor], axes: int) -> tuple[Layout, list[Link]]:
    """The library's layout that has names for all of our weights, and the links. Of several, one
    of the weights' kind, and one that would recognize these names.

    Raises `WeightsError`, with the weights that the best layout has no names for.
    """
    layouts = [layout for layout in get_layouts(library) if layout.axes in (None, axes)]
    if not layouts:
        raise WeightsError(f"{library} has no network on {axes} axes that a layout knows")
    attempts = [(layout, *from_ours(layout.rows, list(ours))) for layout in layouts]

    def misfit(attempt: tuple[Layout, list[Link], list[str]]) -> tuple[int, bool, bool]:
        layout, links, unknown = attempt
        theirs = {name for link in links for name in link.theirs}
        return len(unknown), not layout.fits(ours), not layout.recognizes(theirs)

    layout, links, unknown = min(attempts, key=misfit)
    unknown += [name for link in links for name in link.ours if name not in ours]
    if unknown:
        raise WeightsError(f"{layout.name} has no name for {listed('weights', unknown).strip()}")
    return layout, links
