"""The process in which a contender's memory is measured: a request on stdin, an answer on stdout.

Started by `hierarch.bench.memory`, one contender and one call a process, so that nobody else's
memory is in the peak.
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
"""A side of the image whose call loads the libraries before the measurement."""
PROC = Path("/proc/self")


def main() -> None:
    request = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        found = answer(request)
    print(json.dumps({"bytes": found.bytes, "why": found.why}))
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
            call()  # the compiler's own memory is no part of the call's
        return Peak(above(call, setting.device))


def _load_libraries(who: Contender, setting: Setting) -> None:
    """One call at a tiny size, by a network that is thrown away."""
    tiny = replace(setting, size=(TINY, TINY), batch=1 if setting.mode == "forward" else 2)
    with suppress(Exception):  # a network that takes no tiny image goes without
        prepared(who, tiny)()


def unavailable() -> str:
    """Why this platform does not tell a process's peak; "" where it does."""
    try:
        _reset_peak()
        _kibibytes("VmHWM")
    except (OSError, StopIteration):
        return "the platform has no /proc/self/clear_refs that resets a process's peak"
    return ""


def above(call: Callable[[], object], device: str) -> int:
    """Bytes at the peak of a call, over those before it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    # what is freed but kept by the allocator would be used again and so not be seen
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    _reset_peak()
    before = _kibibytes("VmRSS")
    call()
    return max(0, _kibibytes("VmHWM") - before) * 1024


def _reset_peak() -> None:
    # 5: the peak becomes what is resident now; man 5 proc_pid_clear_refs
    (PROC / "clear_refs").write_text("5")


def _kibibytes(field: str) -> int:
    lines = (PROC / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


if __name__ == "__main__":
    main()
