"""The peak memory of one call, without the network's own, measured in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import hierarch
from hierarch.bench.contenders import Contender
from hierarch.bench.settings import Setting

LIMIT = 1800
"""Timeout of a measurement in seconds; compilation is slow on few cores."""


@dataclass(frozen=True)
class Peak:
    """Bytes in addition to those before the call; None with the reason if not measured."""

    bytes: int | None
    why: str = ""


def peak(contender: Contender, setting: Setting) -> Peak:
    """The peak of resident memory during one call, minus the resident memory just before it.

    If it cannot be measured, `bytes` is None and `why` has the reason.
    """
    request = {
        "origin": dict(contender.origin),
        "execution": contender.execution,
        "setting": asdict(setting),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hierarch.bench.worker"],
            input=json.dumps(request),
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return Peak(None, f"it took over {LIMIT} s")
    if done.returncode:
        message = done.stderr.strip().splitlines() or ["no message"]
        return Peak(None, f"its process ended with status {done.returncode}: {message[-1][:200]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Peak(answer["bytes"], answer["why"])


def environment() -> dict[str, str]:
    """The environment of a process that imports this package from where it is."""
    folder = str(Path(hierarch.__file__).parents[1])
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
