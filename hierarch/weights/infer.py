"""Inferring the spec of a network from its weights."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hierarch.building import Backbone, build
from hierarch.errors import SpecError, WeightsError
from hierarch.report.weights import Location, taken
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides
from hierarch.spec.load import load, loads, override, presets
from hierarch.spec.params import params
from hierarch.weights.adapt import is_shaped
from hierarch.weights.files import Source, read
from hierarch.weights.infer_swin import SwinShapes
from hierarch.weights.load import load_recognized
from hierarch.weights.names import from_ours
from hierarch.weights.recognize import DERIVED_BUFFERS, Recognized, recognize
from hierarch.weights.shapes import Shapes, Undetermined

LOGGER = logging.getLogger("hierarch")
BUFFERS = ("running_mean", "running_var", "random_matrix")
"""What a state dict has that is no parameter."""


@dataclass(frozen=True)
class Inferred:
    """The spec of a checkpoint's network, inferred from its weights.

    >>> from hierarch import build
    >>> mixer = {"type": "window_attention", "head_dim": 8}
    >>> stages = [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 2}]
    >>> model = build({"mixer": mixer, "stages": stages, "head": {"num_classes": 3}})
    >>> infer(model.state_dict()).spec.head.num_classes
    3
    """

    spec: BackboneSpec
    layout: str
    """The library whose names the checkpoint has."""
    assumed: tuple[str, ...]
    """What the weights do not determine, and what was assumed, in sentences."""
    location: Location
    """Where in the checkpoint the network was found."""
    candidates: tuple[Location, ...]
    """Where other networks stand in the checkpoint."""


def infer(
    source: Source,
    *,
    layout: str = "auto",
    key: str | None = None,
    prefix: str | None = None,
    window_size: int | Sides | None = None,
) -> Inferred:
    """Infer the spec of a checkpoint's network from the names and shapes of its weights.

    Swin, Swin V2 and Swin-MLP may have any widths, depths, heads and windows. The other families
    may differ from a preset in widths, depths and classes. `window_size` is for checkpoints that
    do not determine it, such as Swin V2's in timm and transformers. `layout`, `key` and `prefix`
    choose a network in the checkpoint, as in `load_weights`.

    Raises `WeightsError` if the checkpoint cannot be read or is not recognized, and if its weights
    do not determine the spec.

    >>> from hierarch import build
    >>> mixer = {"type": "window_attention", "head_dim": 8}
    >>> stages = [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 2}]
    >>> model = build({"mixer": mixer, "stages": stages, "head": {"num_classes": 3}})
    >>> found = infer(model.state_dict())
    >>> [stage.dim for stage in found.spec.stages], found.layout
    ([16, 32], 'hierarch')
    """
    return infer_from(recognize(read(source), layout, key=key, prefix=prefix), window_size)


def infer_from(recognized: Recognized, window_size: int | Sides | None) -> Inferred:
    """Infer the spec of a checkpoint that has been read; see `infer`."""
    if "spec" in recognized.metadata:
        spec = loads(recognized.metadata["spec"], source="the checkpoint's own spec")
        assumed: list[str] = []
    else:
        spec, assumed = _from_shapes(recognized, window_size)
    return Inferred(
        spec,
        recognized.layout.library,
        tuple(assumed),
        recognized.location,
        recognized.candidates,
    )


def _from_shapes(
    recognized: Recognized, window_size: int | Sides | None
) -> tuple[BackboneSpec, list[str]]:
    weights = recognized.ours().items()
    shapes = Shapes({name: t.shape for name, t in weights if not DERIVED_BUFFERS.search(name)})
    swin = SwinShapes(recognized, shapes, window_size)
    if swin.is_swin():
        data, assumed = swin.spec(), swin.assumed
    else:
        data, assumed = _like_a_preset(recognized, shapes)
    name = recognized.name if recognized.name.isprintable() else ""
    data["name"] = name[:200] or data.get("name", "backbone")
    try:
        return load(data), assumed
    except SpecError as error:
        first, *more = error.problems
        raise WeightsError(
            f"no spec describes a network with these weights: {first}"
            + (f", and {len(more)} more" if more else "")
        ) from None


def from_checkpoint(
    source: Source,
    *,
    layout: str = "auto",
    key: str | None = None,
    prefix: str | None = None,
    window_size: int | Sides | None = None,
    **overrides: Any,
) -> Backbone:
    """Build the network of a checkpoint and load its weights; in eval mode.

    Keywords override fields of the spec, as in `build`: `head=None` for a feature extractor. What
    `infer` assumes, what an override makes `load_weights` resample, and which of several networks
    was taken, is logged as a warning by the logger "hierarch". `layout`, `key` and `prefix` choose
    a network in the checkpoint, as in `load_weights`.

    Raises `WeightsError`, as `infer` and `load_weights` do, and `SpecError` for an unknown
    override.

    >>> from hierarch import build
    >>> mixer = {"type": "window_attention", "head_dim": 8}
    >>> stages = [{"dim": 16, "depth": 2}, {"dim": 32, "depth": 2}]
    >>> model = build({"mixer": mixer, "stages": stages, "head": {"num_classes": 3}})
    >>> again = from_checkpoint(model.state_dict(), head=None)
    >>> again.feature_info.channels()
    [16, 32]
    """
    recognized = recognize(read(source), layout, key=key, prefix=prefix)
    inferred = infer_from(recognized, window_size)
    model = build(override(inferred.spec, overrides))
    report = load_recognized(model, recognized)
    if report.resampled and not overrides:
        raise WeightsError(
            f"the checkpoint's blocks differ from each other: {report.resampled[0]} was needed; "
            "build the model from a spec, and read the checkpoint with load_weights"
        )
    choice = [taken(inferred.location, inferred.candidates)] if inferred.candidates else []
    for sentence in (*inferred.assumed, *report.resampled, *choice):
        LOGGER.warning("%s: %s", inferred.spec.name, sentence)
    return model.eval()


def _like_a_preset(recognized: Recognized, shapes: Shapes) -> tuple[dict[str, Any], list[str]]:
    """A preset with the widths, depths and classes of these weights, and what that assumes.

    Raises `Undetermined` unless exactly one preset then has weights of these names and shapes.
    """
    fitting: dict[BackboneSpec, str] = {}
    learned = sum(math.prod(shapes[name]) for name in shapes if not name.endswith(BUFFERS))
    for name in presets():
        template = load(name)
        try:
            spec = override(template, _changes(template, shapes))
        except (SpecError, WeightsError):
            continue
        if params(spec) != learned:  # sooner known than what the network's weights are
            continue
        with torch.device("meta"):
            state = build(spec).state_dict()
        _, unmatched = from_ours(recognized.layout.rows, state)
        if not unmatched and _has_shapes(state, shapes):
            name = name.rpartition("/")[2]
            fitting.setdefault(_without_initialization(spec), name)
    if len(fitting) == 1:
        [(spec, name)] = fitting.items()
        return spec.to_data(), [f"what the weights do not determine is taken from {name}"]
    which = f"{' and '.join(fitting.values())} have" if fitting else "no preset has"
    raise Undetermined(
        f"the weights of this {recognized.layout.name} checkpoint do not determine its spec: it is "
        f"no Swin, and {which} weights of these names and shapes; build the model from a "
        "spec, and read the checkpoint with load_weights",
        like=next(iter(fitting), None),
    )


def _without_initialization(spec: BackboneSpec) -> BackboneSpec:
    """The spec without fields that no output of a loaded network depends on."""
    scale = {"layer_scale": 1.0} if spec.layer_scale else {}
    return override(spec, {"name": "backbone", "drop_path_rate": 0.0, **scale})


def _changes(template: BackboneSpec, shapes: Shapes) -> dict[str, Any]:
    """The overrides that give a preset the widths, depths and classes of these shapes."""
    stages = []
    for i, depth in shapes.depths().items():
        like = template.stages[min(i, len(template.stages) - 1)]
        first = f"stages.{i}.blocks.0.norm"
        norm = next((name for name in shapes if name.startswith(first)), f"{first}1.weight")
        [dim] = shapes.of(norm, 1)
        stages.append(like.to_data() | {"dim": dim, "depth": depth})
    classes = shapes.of("head.fc.weight", 2)[0] if "head.fc.weight" in shapes else 0
    head = template.head.to_data() if template.head else {}
    stem = template.stem.to_data()
    stem = {"type": stem} if isinstance(stem, str) else stem
    # of a stem of several convolutions, the last one is `proj`
    first = "stem.convs.0.weight" if "stem.convs.0.weight" in shapes else "stem.proj.weight"
    width = shapes.of("stem.proj.weight", 4)[0]
    return {
        "stages": stages,
        "head": head | {"num_classes": classes},
        "stem": stem | {"in_chans": shapes.of(first, 4)[1]},
        "stem_dim": None if width == stages[0]["dim"] else width,
    }


def _has_shapes(state: dict[str, Tensor], shapes: Shapes) -> bool:
    """True if a state dict has exactly these names and shapes."""
    if state.keys() != shapes.keys():
        return False
    return all(is_shaped(name, shapes[name], tensor) for name, tensor in state.items())
