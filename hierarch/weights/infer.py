"""The spec of a network, worked out from its weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hierarch.building import Backbone, build
from hierarch.errors import SpecError, WeightsError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Pair
from hierarch.spec.load import load, loads, override, presets
from hierarch.weights.adapt import is_shaped
from hierarch.weights.files import Checkpoint, Source, read
from hierarch.weights.load import load_weights
from hierarch.weights.names import from_ours
from hierarch.weights.recognize import Recognized, recognize
from hierarch.weights.shapes import Shapes, Untold
from hierarch.weights.swin import SwinShapes

LOGGER = logging.getLogger("hierarch")


@dataclass(frozen=True)
class Inferred:
    """A spec worked out from a checkpoint."""

    spec: BackboneSpec
    layout: str
    assumed: tuple[str, ...]
    """What weights do not tell, and what was taken for it, in sentences."""


def infer(
    source: Source, *, layout: str = "auto", window_size: int | Pair | None = None
) -> Inferred:
    """The spec of the network whose weights these are.

    Swin, Swin V2 and Swin-MLP of any widths, depths, heads and windows; of the other families,
    what differs from a preset in widths, depths and classes. `window_size` is for checkpoints that
    do not tell it: Swin V2's hold nothing of its size in timm and transformers. Raises
    `WeightsError` where something cannot be told.
    """
    checkpoint = read(source)
    return infer_from(checkpoint, recognize(checkpoint.tensors, layout), window_size)


def infer_from(
    checkpoint: Checkpoint, found: Recognized, window_size: int | Pair | None
) -> Inferred:
    """As `infer`, of a checkpoint that is already read."""
    if "spec" in checkpoint.metadata:
        spec = loads(checkpoint.metadata["spec"], source="the checkpoint's own spec")
        return Inferred(spec, found.layout.library, ())
    shapes = Shapes({name: tensor.shape for name, tensor in found.ours().items()})
    swin = SwinShapes(found, shapes, window_size)
    if swin.is_swin():
        data, assumed = swin.spec(), swin.assumed
    else:
        data, assumed = _like_a_preset(found, shapes)
    own = checkpoint.name if checkpoint.name.isprintable() else ""
    data["name"] = own[:200] or data.get("name", "backbone")
    try:
        return Inferred(load(data), found.layout.library, tuple(assumed))
    except SpecError as error:
        first, *more = error.problems
        raise WeightsError(
            f"the weights belong to no network that a spec can say: {first}"
            + (f", and {len(more)} more" if more else "")
        ) from None


def from_checkpoint(
    source: Source,
    *,
    layout: str = "auto",
    window_size: int | Pair | None = None,
    **overrides: Any,
) -> Backbone:
    """Build the network whose weights these are, and load them; in eval mode.

    Keywords override fields of the spec, as in `build`: `head=None` for a feature extractor. What
    is assumed where the weights do not tell, and what an override makes `load_weights` resample,
    is logged as a warning (of the logger "hierarch"). Raises `WeightsError`, as `infer` and
    `load_weights` do, and `SpecError` for an override that is none.
    """
    inferred = infer(source, layout=layout, window_size=window_size)
    model = build(override(inferred.spec, overrides))
    report = load_weights(model, source, layout=inferred.layout)
    if report.resampled and not overrides:
        raise WeightsError(
            f"the checkpoint's blocks differ from each other: {report.resampled[0]} was needed; "
            "build the model from a spec, and read the checkpoint with load_weights"
        )
    for sentence in (*inferred.assumed, *report.resampled):
        LOGGER.warning("%s: %s", inferred.spec.name, sentence)
    return model.eval()


def _like_a_preset(found: Recognized, shapes: Shapes) -> tuple[dict[str, Any], list[str]]:
    """The preset that has these weights, once its widths, depths and classes are theirs."""
    fitting: dict[BackboneSpec, str] = {}
    for name in presets():
        template = load(name)
        try:
            spec = override(template, _changes(template, shapes))
        except (SpecError, WeightsError):
            continue
        with torch.device("meta"):
            state = build(spec).state_dict()
        _, unheld = from_ours(found.layout.rows, state)
        if not unheld and _alike(state, shapes):
            name = name.rpartition("/")[2]
            fitting.setdefault(_as_it_computes(spec), name)
    if len(fitting) == 1:
        [(spec, name)] = fitting.items()
        return spec.to_data(), [f"what the weights do not tell is taken from {name}"]
    which = f"{' and '.join(fitting.values())} have" if fitting else "no preset has"
    raise Untold(
        f"the spec of this {found.layout.name} checkpoint cannot be told: it is no Swin, and "
        f"{which} weights of these names and shapes; build the model from a spec, and read the "
        "checkpoint with load_weights",
        like=next(iter(fitting), None),
    )


def _as_it_computes(spec: BackboneSpec) -> BackboneSpec:
    """The spec without what presets of one family differ in, and no output depends on."""
    scale = {"layer_scale": 1.0} if spec.layer_scale else {}
    return override(spec, {"name": "backbone", "drop_path_rate": 0.0, **scale})


def _changes(template: BackboneSpec, shapes: Shapes) -> dict[str, Any]:
    """What of a preset is to be changed for weights of these shapes."""
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
    return {
        "stages": stages,
        "head": head | {"num_classes": classes},
        "stem": stem | {"in_chans": shapes.of("stem.proj.weight", 4)[1]},
    }


def _alike(state: dict[str, Tensor], shapes: Shapes) -> bool:
    """Whether names and shapes are the same."""
    if state.keys() != shapes.keys():
        return False
    return all(is_shaped(name, shapes[name], tensor) for name, tensor in state.items())
