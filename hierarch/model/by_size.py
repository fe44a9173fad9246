"""What follows from sizes alone, and on a GPU takes longer to work out than to use: each of a dozen
small operators costs the processor as much there as a large one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

from hierarch.model.inference import runs_eagerly

P = ParamSpec("P")
T = TypeVar("T")
ENTRIES = 64
"""Kept of what a function made: two cuts in each of four stages, at eight sizes."""


def kept_on_gpu(make: Callable[P, T]) -> Callable[P, T]:
    """A function of sizes, and of the `device` of the tensors it makes, which keeps the last of
    them where that is a GPU.

    They are kept stream by stream, since a tensor is ready for what waits in the stream that it was
    made in. The memory of a CUDA graph is its own: what is made in one is not kept, nor used there.
    """

    def make_to_keep(stream: torch.cuda.Stream, *args: P.args, **named: P.kwargs) -> T:
        with torch.inference_mode(False):  # training may keep it for its gradients
            return make(*args, **named)

    kept: Callable[..., T] = functools.lru_cache(ENTRIES)(make_to_keep)

    @functools.wraps(make)
    def made(*args: P.args, **named: P.kwargs) -> T:
        device = torch.device(cast(torch.device, named.get("device", "cpu")))
        if device.type != "cuda" or not runs_eagerly() or torch.cuda.is_current_stream_capturing():
            return make(*args, **named)
        return kept(torch.cuda.current_stream(device), *args, **named)

    return made
