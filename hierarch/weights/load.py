"""Reading a checkpoint into a model: all of it, or none."""

from __future__ import annotations

import os
import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hierarch.errors import WeightsError
from hierarch.model.backbone import Backbone, build
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.head import HeadSpec
from hierarch.weights.layouts import LAYOUTS, WORKED_OUT, Layout

_OUTPUT_NORM = re.compile(r"stages\.\d+\.norm\.")


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight."""

    layout: str
    loaded: tuple[str, ...]
    """Our names of the weights that were read."""
    initialized: tuple[str, ...]
    """Our names of output norms that the checkpoint does not have; they stay as they were."""
    ignored: tuple[str, ...]
    """The checkpoint's names of what was not used: worked-out buffers; and for a model without a
    head the final norm, the classifier, and the stages after its last output."""


def load_weights(
    model: Backbone,
    source: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    layout: str = "auto",
) -> LoadReport:
    """Read weights from a file (.safetensors, .pth, .pt, .bin) or a state dict into a model.

    The layout is told from the keys: "official" (microsoft/Swin-Transformer, Swin and Swin-MLP),
    "timm", "torchvision", "huggingface" (transformers' Swin), or the library's own, "hierarch". A
    pickle is read without running code. Raises `WeightsError` for a file that cannot be read, a
    layout that is not recognized, and weights that do not fit; the model is then unchanged.
    """
    given = dict(source) if isinstance(source, Mapping) else _read(Path(source))
    given = _unwrap(given)
    chosen = _layout(layout, given)
    spelled = {name: chosen.spelled(name) for name in given}
    uses = Counter(spelled.values())
    if twice := [name for name, key in spelled.items() if uses[key] > 1]:
        raise WeightsError(f"one weight has several names: {_listed('seen', twice)}")
    given = {spelled[name]: tensor for name, tensor in given.items()}
    state = model.state_dict()
    names = {key: chosen.pieces(key) for key in state}
    fresh = [k for k, pieces in names.items() if _OUTPUT_NORM.match(k) and pieces[0] not in given]
    wanted = {name: key for key, pieces in names.items() if key not in fresh for name in pieces}
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    beyond = {name for key in _beyond(model.spec) for name in chosen.pieces(key)}
    unused = [name for name in extra if WORKED_OUT.search(name) or name in beyond]
    unknown = [name for name in extra if name not in unused]
    if missing or unknown:
        raise WeightsError(
            f"the {chosen.name} checkpoint does not fit {model.spec.name}: "
            f"{_listed('missing', missing)}{_listed('left over', unknown)}"
        )
    fitted = {
        key: _fit(key, _join(key, [given[name] for name in pieces]), state[key])
        for key, pieces in names.items()
        if key not in fresh
    }
    model.load_state_dict({**state, **fitted})
    return LoadReport(chosen.name, tuple(fitted), tuple(fresh), tuple(unused))


def _beyond(spec: BackboneSpec) -> set[str]:
    """Our names of what a network without a head leaves out: the head, and the last stages."""
    if spec.head:
        return set()
    with torch.device("meta"):
        classifier = build(spec, head=HeadSpec(), out_indices=None)
        outputs = build(spec, out_indices=None)
    return {*classifier.state_dict(), *outputs.state_dict()}


def _join(key: str, pieces: list[Tensor]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    shapes = {tuple(piece.shape) for piece in pieces}
    if len(shapes) != 1 or () in shapes:
        raise WeightsError(f"{key}'s parts should have one shape, got {sorted(shapes)}")
    return torch.cat(pieces)


def _fit(key: str, tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the shape of our weight. The absolute position's grid may lie flat."""
    flat = key == "position_embedding.table" and tensor.ndim == 3
    if flat and tensor.numel() == like.numel() and tensor.shape[-1] == like.shape[-1]:
        return tensor.view(like.shape)
    if tensor.shape != like.shape:
        raise WeightsError(f"{key} should have shape {(*like.shape,)}, got {(*tensor.shape,)}")
    if not tensor.is_floating_point():
        raise WeightsError(f"{key} should be of floating-point numbers, got {tensor.dtype}")
    return tensor


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: is no plain checkpoint: it is damaged, or holds something other than "
            "tensors, which could run code when read"
        ) from None
    except Exception as error:  # a damaged pickle ends in whatever its operations meet
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: cannot be read: {reason}") from None
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, not a state dict")
    return dict(found)


def _unwrap(given: dict[str, Any]) -> dict[str, Tensor]:
    for wrapper in ("model", "state_dict"):
        if isinstance(given.get(wrapper), Mapping):
            given = dict(given[wrapper])
    odd = [
        str(key)
        for key, value in given.items()
        if not isinstance(key, str) or not isinstance(value, Tensor)
    ]
    if odd or not given:
        raise WeightsError(f"not a state dict: {_listed('no named tensors', odd) or 'it is empty'}")
    return given


def _layout(name: str, given: Mapping[str, Tensor]) -> Layout:
    if name != "auto":
        if name not in LAYOUTS:
            raise WeightsError(f"unknown layout {name!r}; known: auto, {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    fitting = [
        layout
        for layout in LAYOUTS.values()
        if layout.recognizes({layout.spelled(key) for key in given})
    ]
    if len(fitting) != 1:
        found = " and ".join(layout.name for layout in fitting) or f"none of {', '.join(LAYOUTS)}"
        raise WeightsError(f"which layout? The keys fit {found}; {_listed('seen', list(given))}")
    return fitting[0]


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(name[:100] for name in names[:4])
    return f"{what} {len(names)} ({shown}{', ...' if len(names) > 4 else ''}) "
