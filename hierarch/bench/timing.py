"""The rotation: everybody is called once a round, and whoever was first is last in the next.

On a machine that others use too, a slow spell then falls on all alike, and the ratio of two
contenders is taken round by round: its median forgets the rounds that something came between.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

WARMUP = 2
"""Calls before the first round: the first of all may still compile and allocate."""
MOMENT = 0.01
"""Seconds in which a process is seen to rest, or not."""
PATIENCE = 0.5
"""Seconds that it is waited for, at most."""


def rotation(count: int, rounds: int) -> Iterator[list[int]]:
    """The order of each round.

    >>> list(rotation(3, 4))
    [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
    """
    order = list(range(count))
    for number in range(rounds):
        start = number % count
        yield order[start:] + order[:start]


def at_rest() -> bool:
    """Waits until no thread of the process works; False if some still do after a while.

    A runtime's threads, and torch's, go on looking for work after a call, ONNX Runtime's for 30 ms:
    on a processor that the next contender needs, which would be told to be slow.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        begun, worked = time.monotonic(), time.process_time()
        time.sleep(MOMENT)
        if time.process_time() - worked < (time.monotonic() - begun) / 10:
            return True
    return False


def interleaved(
    calls: Sequence[Callable[[], object]],
    *,
    rounds: int,
    warmup: int = WARMUP,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[], object] = lambda: None,
    rest: Callable[[], object] = at_rest,
) -> list[tuple[float, ...]]:
    """Seconds of each call in each round, by call. `advance` is called after every call, and the
    next call made when the process `rest`s."""
    for call in calls:
        for _ in range(warmup):
            call()
            advance()
    times: list[list[float]] = [[] for _ in calls]
    gc.collect()
    collects = gc.isenabled()
    gc.disable()  # as timeit does: whose call it came in would be chance
    try:
        for order in rotation(len(calls), rounds):
            for index in order:
                rest()
                begun = clock()
                calls[index]()
                times[index].append(clock() - begun)
                advance()
    finally:
        if collects:
            gc.enable()
    return [tuple(seconds) for seconds in times]


def ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """The median over the rounds of one contender's time over another's.

    >>> ratio([1, 2, 30], [2, 4, 6])
    0.5
    """
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))
