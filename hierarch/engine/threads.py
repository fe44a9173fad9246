"""A pool of threads, in each of which torch uses one: for the images of a batch, or tiles of a map.

torch itself splits each operator among threads, and all of them wait for the slowest after each
one. Here threads wait once, at the end of a batch or of a block.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from hierarch.engine import torch_private

Item = TypeVar("Item")
Result = TypeVar("Result")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
"""By process and number of threads: a forked process has no threads of its parent's pools."""
_lock = threading.Lock()


def threads_for(count: float) -> int:
    """The number of threads to share so many items among, such as images; 1 for the caller's alone.

    With fewer items than threads, torch's own way is faster, in which each thread reads only some
    of the weights.
    """
    threads = 1 if torch.is_autocast_enabled("cpu") else torch.get_num_threads()
    return threads if count >= threads else 1


def each(run: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """[run(item) for item in items], in so many threads, with autograd off."""
    if threads == 1:
        return list(map(run, items))
    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad

    results: dict[int, Result] = {}
    todo = deque(enumerate(items))

    def work() -> None:
        with mode():  # grad mode is a thread's own
            while True:
                try:
                    index, item = todo.popleft()
                except IndexError:
                    return
                try:
                    results[index] = run(item)
                except BaseException:
                    todo.clear()  # stops the other threads
                    raise

    # one future a thread, not one an item: the caller would wake up for each, and hold up the rest
    with _lock:
        workers = [_pool(threads).submit(work) for _ in range(threads)]
    try:
        for worker in workers:
            worker.result()
    finally:
        todo.clear()  # also where the caller was interrupted
    return [results[index] for index in range(len(results))]


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in each of which torch uses one thread, and flushes subnormal numbers to 0. The
    caller holds `_lock`."""
    key = (os.getpid(), threads)
    if key not in _pools:
        _pools[key] = _started(threads)
    return _pools[key]


def end_pools() -> None:
    """Lets the threads end after what they do now; others start when they are needed."""
    with _lock:
        for pool in _pools.values():
            pool.shutdown(wait=False)
        _pools.clear()


def _started(threads: int) -> ThreadPoolExecutor:
    all_started, process_changed = threading.Barrier(threads + 1), threading.Event()

    def start() -> None:
        torch.get_num_threads()  # a thread inherits the process's number when first asked
        if not _uses_one():
            torch.set_num_threads(1)
            process_changed.set()
        # a mask of -100 makes subnormal numbers in a softmax, with which processors are slow
        torch.set_flush_denormal(True)
        all_started.wait()

    pool = ThreadPoolExecutor(threads, "hierarch", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    all_started.wait()
    if process_changed.is_set():
        torch.set_num_threads(threads)  # the process's number again; the pool's threads keep theirs
    return pool


def _uses_one() -> bool:
    """Sets the calling thread's number of threads to 1; False if torch's libraries offer no way.

    torch.set_num_threads would also turn off MKL's dynamic threads for the whole process, so that
    each of torch's threads starts others: attention, for one, then takes half as long again.
    """
    if torch_private.openmp_library() is None:
        return False
    library = ctypes.CDLL(torch_private.openmp_library())
    setters = ["omp_set_num_threads"]
    if torch_private.has_mkl():
        setters.append("MKL_Set_Num_Threads_Local")
    if not all(hasattr(library, name) for name in setters):
        return False
    for name in setters:
        getattr(library, name)(1)
    return torch.get_num_threads() == 1  # False where another OpenMP was loaded before torch's
