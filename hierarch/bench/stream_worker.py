"""The program that runs one contender of a stream: lines of JSON on stdin, an answer to each.

The first line says which contender it is, and all sizes of the stream; the answer is the resident
memory before the first image. Each line after it is the first and the last-but-one index of a group
of images, whose calls are the answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, TextIO

import torch

from hierarch.bench.calls import Images, any_size
from hierarch.bench.contenders import Contender, contender
from hierarch.bench.machine import threads_of_torch
from hierarch.bench.settings import Setting
from hierarch.bench.stream_sizes import groups
from hierarch.bench.worker import TINY, give_back_freed_memory, resident
from hierarch.errors import HierarchError
from hierarch.spec.grid import Sides, tokens
from hierarch.timing import at_rest


def main() -> None:
    # what the network or a library prints is no answer, even if it is not Python that prints
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    try:
        with threads_of_torch(request["setting"]["threads"]):
            serve(request, answers)
    except HierarchError as error:
        _answer(answers, {"error": type(error).__name__, "message": str(error)})
    os._exit(0)  # torch's threads have nothing to finish


def serve(request: Mapping[str, Any], answers: TextIO) -> None:
    """Builds the network, and makes the calls that stdin asks for."""
    fields, together = request["setting"], request["together"]
    setting = Setting(**{**fields, "size": tuple(fields["size"])})
    sizes: list[Sides] = [tuple(size) for size in request["sizes"]]
    who = contender(request["origin"], request["execution"])
    torch.manual_seed(0)
    _load_libraries(who, setting, sizes)
    call = any_size(who, setting)
    pixels = max(
        sum(map(tokens, sizes[first:end])) for first, end in groups(len(sizes), request["group"])
    )
    # all images are parts of one tensor, so that loading an image takes no memory
    buffer = torch.randn(who.in_chans * pixels).to(setting.device, setting.torch_dtype)
    give_back_freed_memory(setting.device)
    at_rest()
    _answer(answers, resident(setting.device))
    for line in sys.stdin:
        first, end = json.loads(line)
        images = _views(buffer, who.in_chans, sizes[first:end])
        batches: Sequence[Images] = [images] if together else [image[None] for image in images]
        calls = [_timed(call, batch, setting.device) for batch in batches]
        at_rest()  # the next turn is another process's
        _answer(answers, calls)


def _load_libraries(who: Contender, setting: Setting, sizes: Sequence[Sides]) -> None:
    """Makes one call of another instance of the network, with a tiny image of a size that the
    stream does not have: loading a library is no part of an image's time."""
    axes = len(setting.size)
    side = next(side for side in count(TINY, TINY // 2) if (side,) * axes not in sizes)
    with suppress(Exception):  # a network may not accept a tiny image
        any_size(who, setting)(
            torch.randn(1, who.in_chans, *(side,) * axes).to(setting.device, setting.torch_dtype)
        )


def _views(buffer: torch.Tensor, in_chans: int, sizes: Sequence[Sides]) -> list[torch.Tensor]:
    """Images (C, H, W) of these sizes, one after the other in the buffer."""
    numbers = [in_chans * tokens(size) for size in sizes]
    parts = torch.split(buffer[: sum(numbers)], numbers)
    return [part.view(in_chans, *size) for part, size in zip(parts, sizes, strict=True)]


def _timed(call: Callable[[Images], object], images: Images, device: str) -> dict[str, Any]:
    begun = time.perf_counter()
    outputs = call(images)
    seconds = time.perf_counter() - begun
    del outputs
    return {"seconds": seconds, "resident": resident(device)}


def _answer(answers: TextIO, content: object) -> None:
    print(json.dumps(content), file=answers, flush=True)


if __name__ == "__main__":
    main()
