"""Work shared among threads in each of which torch uses no other: what inference on a CPU does.

torch itself shares each operator among threads, and after each, everybody waits for the slowest.
Here they wait once at the end of a batch, whose images are shared, or of a block, whose tiles are.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    all_there = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread takes over the process's number when it is first asked
        torch.set_num_threads(1)
        # a mask of -100 makes subnormal numbers in a softmax, with which processors are slow
        torch.set_flush_denormal(True)
        all_there.wait()

    with _mkl_as_it_was():
        pool = ThreadPoolExecutor(threads, "hierarch", initializer=start)
        for _ in range(threads):
            pool.submit(int)
        all_there.wait()
        # the process's number again, by a thread that ends: the caller's own, and the pool's, stay
        with ThreadPoolExecutor(1) as once:
            once.submit(torch.set_num_threads, threads).result()
    return pool


@contextmanager
def _mkl_as_it_was() -> Iterator[None]:
    """Undoes what torch.set_num_threads does to MKL for the whole process, where torch has one.

    After it MKL would share even a multiplication that one of several threads asks for, and torch's
    own attention take half as long again.
    """
    library = ctypes.CDLL(torch._C.__file__)
    try:
        is_dynamic, set_dynamic = library.mkl_serv_get_dynamic, library.MKL_Set_Dynamic
    except AttributeError:
        yield
        return
    before = is_dynamic()
    yield
    set_dynamic(before)
