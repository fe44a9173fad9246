"""Results that are kept: masks until a weight changes, and on a GPU tensors that follow from sizes.

On a CPU, masks are gathered from a table of weights. On a GPU, each of a dozen small operators
costs the processor as much time as a large one.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

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

Value = TypeVar("Value")
masks = MaskedWindowMixer.masks
"""The definition."""
ENTRIES = 64
"""Orders of windows that are kept: two cuts in each of four stages, at eight sizes."""
MAX_CONSTANTS = 8 * ENTRIES
"""Tensors that are kept on a GPU: indices, masks, offsets."""


class Memo:
    """Keeps one value until a weight changes, in whatever way: weights are compared with copies."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Sequence[Tensor], Any] | None = None

    def get(self, key: Hashable, weights: Sequence[Tensor], make: Callable[[], Value]) -> Value:
        """make(), or its last result if that was for the same key and the same weights."""
        kept = self._kept  # read once: another thread may replace it
        if kept is not None and kept[0] == key and _same(kept[1], weights):
            value: Value = kept[2]
            return value
        value = make()
        self._kept = (key, [weight.detach().clone() for weight in weights], value)
        return value


def _same(copies: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    return all(
        copy.dtype == weight.dtype
        and copy.device == weight.device
        and copy.shape == weight.shape
        and torch.equal(copy, weight)
        for copy, weight in zip(copies, weights, strict=True)
    )


_memos: weakref.WeakKeyDictionary[nn.Module, Memo] = weakref.WeakKeyDictionary()


def refuses_remembered(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> Refusal | None:
    """Not on a GPU: comparing weights would make the processor wait for it."""
    inner = tuple(mixer.children())
    if refusal := not_cpu_inference(like) or inside(not_per_token, *inner):
        return refusal
    return inside(not_registered, *inner)


@way("remembered", refuses_remembered)
def run_remembered(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> KindMasks:
    rounded_to = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    key = cut.window, cut.shift, like.dtype, rounded_to
    memo = _memos.setdefault(mixer, Memo())
    weights = mixer.bias_parameters()
    return memo.get(key, weights, lambda: masks(mixer, cut, like))


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
