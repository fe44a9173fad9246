"""The program that measures a contender's memory: a JSON request on stdin, an answer on stdout.

`hierarch.bench.memory` starts one process per contender and setting, so that the peak has no memory
of others.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hierarch.bench.calls import prepared
from hierarch.bench.contenders import Contender, contender
from hierarch.bench.machine import threads_of_torch
from hierarch.bench.memory import Peak
from hierarch.bench.settings import Setting

TINY = 64
"""Side of the image of the call that loads libraries before the measurement."""
PROC = Path("/proc/self")


def main() -> None:
    request = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        measured = answer(request)
    print(json.dumps({"bytes": measured.bytes, "why": measured.why}))
    sys.stdout.flush()
    os._exit(0)  # a runtime's threads may outlive the interpreter


def answer(request: Mapping[str, Any]) -> Peak:
    fields = request["setting"]
    setting = Setting(**{**fields, "size": tuple(fields["size"])})
    who = contender(request["origin"], request["execution"])
    if setting.device == "cpu" and (why := unavailable()):
        return Peak(None, why)
    with threads_of_torch(setting.threads):
        if who.execution in ("eager", "packed"):
            _load_libraries(who, setting)
        call = prepared(who, setting)
        if who.execution == "compiled":
            call()  # compiles, so that the compiler's memory is not measured
        return Peak(above(call, setting.device))


def _load_libraries(who: Contender, setting: Setting) -> None:
    """Makes one call at a tiny size with another instance of the network."""
    tiny = replace(setting, size=(TINY, TINY), batch=1 if setting.mode == "forward" else 2)
    with suppress(Exception):  # a network may not accept a tiny image
        prepared(who, tiny)()


def unavailable() -> str:
    """The reason why the platform cannot measure a process's peak memory; "" if it can."""
    try:
        _reset_peak()
        _kibibytes("VmHWM")
    except (OSError, StopIteration):
        return "the platform has no /proc/self/clear_refs that resets a process's peak"
    return ""


def above(call: Callable[[], object], device: str) -> int:
    """The peak of allocated bytes during a call, minus those before it."""
    give_back_freed_memory(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    _reset_peak()
    before = _kibibytes("VmRSS")
    call()
    return max(0, _kibibytes("VmHWM") - before) * 1024


def give_back_freed_memory(device: str) -> None:
    """Returns freed memory, which the allocator keeps, to the system or the GPU: calls would reuse
    it, so that it would not be measured."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident(device: str) -> int | None:
    """Bytes of the process that are resident, or, on a GPU, that torch's allocator holds; None on a
    platform that does not say."""
    if device == "cuda":
        return torch.cuda.memory_reserved()
    try:
        return _kibibytes("VmRSS") * 1024
    except (OSError, StopIteration):
        return None


def _reset_peak() -> None:
    # 5 resets the peak to the resident memory of now; man 5 proc_pid_clear_refs
    (PROC / "clear_refs").write_text("5")


def _kibibytes(field: str) -> int:
    lines = (PROC / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


if __name__ == "__main__":
    main()
