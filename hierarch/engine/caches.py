"""Results that are kept: masks until a weight changes, and on a GPU tensors that follow from sizes.

On a CPU, masks are gathered from a table of weights. On a GPU, each of a dozen small operators
costs the processor as much time as a large one.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hierarch.engine.conditions import (
    inside,
    not_cpu_inference,
    not_per_token,
    not_registered,
    observed,
)
from hierarch.engine.seam import Refusal, way
from hierarch.nn.cut import Cut
from hierarch.nn.window_mixer import KindMasks, MaskedWindowMixer

masks = MaskedWindowMixer.masks
"""The definition."""
ENTRIES = 64
"""Orders of windows that are kept: two cuts in each of four stages, at eight sizes."""
MAX_CONSTANTS = 8 * ENTRIES
"""Tensors that are kept on a GPU: indices, masks, offsets."""


Kept = tuple[Any, list[Tensor], KindMasks]
"""The sizes and types that masks are for, copies of the weights that they depend on, the masks."""
_kept: weakref.WeakKeyDictionary[nn.Module, Kept] = weakref.WeakKeyDictionary()


def refuses_remembered(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> Refusal | None:
    """Not on a GPU: comparing weights would make the processor wait for it."""
    inner = tuple(mixer.children())
    return (
        not_cpu_inference(like) or inside(not_per_token, *inner) or inside(not_registered, *inner)
    )


@way("remembered", refuses_remembered)
def run_remembered(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> KindMasks:
    """The last masks, unless a weight has changed, in whatever way: it is compared with a copy."""
    weights = mixer.bias_parameters()
    rounded_to = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    dtypes = [like.dtype, rounded_to, *(weight.dtype for weight in weights)]
    key = cut.window, cut.shift, dtypes
    kept = _kept.get(mixer)  # once: another thread may replace it
    if kept and kept[0] == key and all(map(torch.equal, kept[1], weights)):
        return kept[2]
    made = masks(mixer, cut, like)
    _kept[mixer] = key, [weight.detach().clone() for weight in weights], made
    return made


def refuses_constant(
    make: Callable[..., Tensor], *sizes: Any, device: torch.device
) -> Refusal | None:
    if device.type != "cuda":
        return Refusal("not on a GPU")
    if torch.cuda.is_current_stream_capturing():  # its memory is the graph's
        return Refusal("a CUDA graph is captured")
    return observed()


@way("kept on the GPU", refuses_constant)
def run_constant(make: Callable[..., Tensor], *sizes: Any, device: torch.device) -> Tensor:
    # by stream, since a tensor is ready for what waits in the stream that it was made in
    return _constant(torch.cuda.current_stream(device), make, device, *sizes)


@functools.lru_cache(MAX_CONSTANTS)
def _constant(
    stream: torch.cuda.Stream, make: Callable[..., Tensor], device: torch.device, *sizes: Any
) -> Tensor:
    with torch.inference_mode(False):  # training may keep it for a gradient
        return make(*sizes, device=device)
