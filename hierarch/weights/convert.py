"""Converting a checkpoint from one library's layout to another's, without building a model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hierarch.building import build
from hierarch.errors import WeightsError
from hierarch.report.weights import ConversionReport
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides
from hierarch.spec.load import Source as SpecSource
from hierarch.spec.load import load
from hierarch.weights.adapt import check_numbers, is_shaped
from hierarch.weights.export import needs_spec, renamed, save
from hierarch.weights.files import Source, listed, read
from hierarch.weights.infer import infer_from
from hierarch.weights.names import from_theirs
from hierarch.weights.recognize import Recognized, recognize
from hierarch.weights.shapes import Undetermined

NORM = re.compile(r"(stages\.\d+\.)?norm\.")
"""Norms of outputs, of which a network may use only some."""


def convert_weights(
    source: Source,
    path: str | os.PathLike[str],
    *,
    layout: str,
    source_layout: str = "auto",
    key: str | None = None,
    prefix: str | None = None,
    spec: SpecSource | None = None,
    window_size: int | Sides | None = None,
) -> ConversionReport:
    """Write the network of a checkpoint in another library's layout ("timm"), buffers included.

    The spec is inferred from the weights, as by `infer`, unless it is given. It determines the
    buffers, and that no weight is missing. `source_layout`, `key` and `prefix` choose a network in
    the checkpoint, as `layout`, `key` and `prefix` do in `load_weights`.

    Raises `WeightsError` if the checkpoint cannot be read, is not recognized or lacks weights, if
    the layout has no name for one of its weights, and if the file cannot be written.

    >>> from hierarch import build
    >>> mixer = {"type": "window_attention", "head_dim": 8}
    >>> stages = [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 2}]
    >>> model = build({"mixer": mixer, "stages": stages, "head": {"num_classes": 3}})
    >>> from hierarch import export_weights
    >>> _ = export_weights(model, "small.safetensors", layout="timm")
    >>> report = convert_weights("small.safetensors", "small.pth", layout="huggingface")
    >>> report.source_layout, report.layout
    ('timm', 'huggingface')
    """
    recognized = recognize(read(source), source_layout, key=key, prefix=prefix)
    known, assumed, like = _spec(recognized, spec, window_size, needed=needs_spec(layout))
    ours = recognized.ours()
    for name, tensor in ours.items():
        check_numbers(name, tensor)
    _check_complete(recognized, ours, like)
    tensors = renamed(ours, known, layout)
    save(path, tensors, known, layout)
    _, foreign = from_theirs(recognized.layout.rows, recognized.tensors)
    return ConversionReport(
        source_layout=recognized.layout.library,
        layout=layout,
        output=os.fspath(path),
        tensors=len(tensors),
        bytes=sum(tensor.nbytes for tensor in tensors.values()),
        ignored=(*(recognized.original[name] for name in foreign), *recognized.others),
        spec=known,
        assumed=assumed,
        location=recognized.location,
        candidates=recognized.candidates,
    )


def _spec(
    recognized: Recognized,
    given: SpecSource | None,
    window_size: int | Sides | None,
    *,
    needed: bool,
) -> tuple[BackboneSpec | None, tuple[str, ...], BackboneSpec]:
    """The network's spec, what it assumes, and a spec whose weights have the same shapes."""
    if given is not None:
        known = load(given)
        return known, (), known
    try:
        inferred = infer_from(recognized, window_size)
        return inferred.spec, inferred.assumed, inferred.spec
    except Undetermined as error:
        if not needed and error.like:
            return None, (), error.like
        if not needed and error.window:
            return None, (), infer_from(recognized, error.window).spec
        raise WeightsError(f"{error}; or give the spec") from None


def _check_complete(recognized: Recognized, ours: Mapping[str, Tensor], spec: BackboneSpec) -> None:
    """Raise `WeightsError` unless the weights are those of the spec, in names and shapes."""
    with torch.device("meta"):
        expected = build(spec).state_dict()
    missing = [name for name in expected if name not in ours]
    # transformers' Backbone has a last norm besides those of its outputs
    left = [name for name in ours if name not in expected and not NORM.match(name)]
    if missing or left:
        problems = f"{listed('missing', missing)}{listed('left over', left)}".strip()
        raise WeightsError(
            f"the {recognized.layout.library} checkpoint is no complete {spec.name}: {problems}"
        )
    for name, like in expected.items():
        if not is_shaped(name, ours[name].shape, like):
            shape = tuple(ours[name].shape)
            raise WeightsError(f"{name} should have shape {(*like.shape,)}, got {shape}")
