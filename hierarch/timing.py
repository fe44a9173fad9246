"""Timing in rotation: every contender is called once per round, and the first is last in the next.

On a shared machine, a slow period then affects all contenders alike. The ratio of two contenders is
the median of the ratios in each round, so that single slow calls do not affect it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

WARMUP = 2
"""Calls before the first round: the first one may compile and allocate."""
MOMENT = 0.01
"""Seconds over which the process is observed to be idle or not."""
PATIENCE = 0.5
"""Seconds to wait for the process to be idle, at most."""


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
    """Waits until all threads of the process are idle; False if they are not after `PATIENCE`.

    The threads of a runtime, and torch's, spin for some time after a call (ONNX Runtime's for
    30 ms), and would slow down the next contender.
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
    """The seconds of each call in each round, by call. `rest` is called before every timed call,
    and `advance` after every call."""
    for call in calls:
        for _ in range(warmup):
            call()
            advance()
    times: list[list[float]] = [[] for _ in calls]
    gc.collect()
    collects = gc.isenabled()
    gc.disable()  # as timeit does: it would slow down a random contender
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
