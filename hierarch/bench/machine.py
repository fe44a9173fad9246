"""The processor, and the number of threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name and the number of logical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_name()}, {usable} cores"


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Context in which torch uses `count` threads per operator.

    torch.set_num_threads also turns off MKL's dynamic threads for the rest of the process, which
    makes torch's own attention slower. So it is not called if the number is right already.
    """
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
