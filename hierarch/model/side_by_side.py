"""Work shared among threads in each of which torch uses no other: what inference on a CPU does.

torch itself shares each operator among threads, and after each, everybody waits for the slowest.
Here they wait once at the end of a batch, whose images are shared, or of a block, whose tiles are.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")
Output = Tensor | tuple[Tensor, ...]

AT_ONCE = 4
"""Images that a thread takes at a time, at least, if there are as many: with fewer, a late stage's
weights are read for too few tokens."""
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


def threads_for(count: float) -> int:
    """How many threads so many images or tiles can be shared among; 1 for none but the caller's.

    With fewer than there are threads, torch's own way is faster, in which each thread reads only
    some of the weights.
    """
    threads = 1 if torch.is_autocast_enabled("cpu") else torch.get_num_threads()
    return threads if count >= threads else 1


def side_by_side(run: Callable[[Tensor], Output], images: Tensor, threads: int) -> Output:
    """What `run` gives for a batch, worked out for some images at a time, without a gradient."""
    turns = max(1, len(images) // (threads * AT_ONCE))
    outputs = each(run, images.tensor_split(threads * turns), threads)
    if isinstance(outputs[0], tuple):
        return tuple(map(torch.cat, zip(*outputs, strict=True)))
    return torch.cat(cast(list[Tensor], outputs))


def each(run: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """What `run` gives for each item, in so many threads, without a gradient."""
    if threads == 1:
        return list(map(run, items))
    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad

    results: dict[int, Result] = {}
    todo = deque(enumerate(items))

    def work() -> None:
        with mode():  # another thread would not know
            while True:
                try:
                    index, item = todo.popleft()
                except IndexError:
                    return
                try:
                    results[index] = run(item)
                except BaseException:
                    todo.clear()  # nobody goes on
                    raise

    # one future a thread, not one an item: the caller would wake up for each, and hold up the rest
    workers = [_pool(threads).submit(work) for _ in range(threads)]
    try:
        for worker in workers:
            worker.result()
    finally:
        todo.clear()  # nor where the caller was interrupted
    return [results[index] for index in range(len(results))]


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads inside which torch uses no other, and takes subnormal numbers for 0: kept, but for a
    forked process, that has none."""
    key = (os.getpid(), threads)
    with _lock:
        if key not in _pools:
            _pools[key] = _started(threads)
        return _pools[key]


def _started(threads: int) -> ThreadPoolExecutor:
    all_there, all_told = threading.Barrier(threads + 1), threading.Event()

    def start() -> None:
        torch.get_num_threads()  # a thread takes over the process's number when it is first asked
        if not _uses_one():
            torch.set_num_threads(1)
            all_told.set()
        # a mask of -100 makes subnormal numbers in a softmax, with which processors are slow
        torch.set_flush_denormal(True)
        all_there.wait()

    pool = ThreadPoolExecutor(threads, "hierarch", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    all_there.wait()
    if all_told.is_set():
        torch.set_num_threads(threads)  # the process's number again; the pool's threads keep theirs
    return pool


def _uses_one() -> bool:
    """Has the calling thread use no other in torch; False where torch's libraries cannot be asked.

    torch.set_num_threads would also have MKL, for the whole process, share what each of torch's
    threads multiplies: its attention, for one, takes half as long again then.
    """
    library = ctypes.CDLL(torch._C.__file__)
    setters = ["omp_set_num_threads"] + ["MKL_Set_Num_Threads_Local"] * torch._C.has_mkl
    if not all(hasattr(library, name) for name in setters):
        return False
    for name in setters:
        getattr(library, name)(1)
    return torch.get_num_threads() == 1  # not so where another OpenMP was loaded before torch's
