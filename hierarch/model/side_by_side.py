"""The images of a batch, some to each core: what inference on a CPU does with a batch.

Inside each of these threads torch uses no other, so that nobody waits for the slower of two cores
after every operator, only at the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import torch
from torch import Tensor

Output = Tensor | tuple[Tensor, ...]

AT_ONCE = 4
"""Images that a thread takes at a time, at least, if there are as many: with fewer, a late stage's
weights are read for too few tokens."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


def threads_for(images: Tensor) -> int:
    """How many threads a batch can be shared among; 1 for none but the caller's own."""
    threads = torch.get_num_threads()
    return threads if len(images) >= threads and not torch.is_autocast_enabled("cpu") else 1


def side_by_side(run: Callable[[Tensor], Output], images: Tensor, threads: int) -> Output:
    """What `run` gives for a batch, worked out for some images at a time, without a gradient."""
    inference = torch.is_inference_mode_enabled()

    def one(part: Tensor) -> Output:
        with torch.inference_mode() if inference else torch.no_grad():
            return run(part)

    turns = max(1, len(images) // (threads * AT_ONCE))
    parts = images.tensor_split(threads * turns)
    outputs = list(_pool(threads).map(one, parts))
    if isinstance(outputs[0], tuple):
        return tuple(map(torch.cat, zip(*outputs, strict=True)))
    return torch.cat(cast(list[Tensor], outputs))


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads inside which torch uses no other: kept, but for a forked process, that has none."""
    key = (os.getpid(), threads)
    with _lock:
        if key not in _pools:
            _pools[key] = _started(threads)
        return _pools[key]


def _started(threads: int) -> ThreadPoolExecutor:
    all_there = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread takes over the process's number when it is first asked
        torch.set_num_threads(1)
        all_there.wait()

    pool = ThreadPoolExecutor(threads, "hierarch", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    all_there.wait()
    torch.set_num_threads(threads)  # the process's number again; the pool's threads keep theirs
    return pool
