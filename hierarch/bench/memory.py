"""The peak memory of one call above the network's own, measured in a process of its own."""

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
"""Seconds that a measurement may take; a compiler is slow on few cores."""


@dataclass(frozen=True)
class Peak:
    """Bytes above the model, or why there are none."""

    bytes: int | None
    why: str = ""


def peak(contender: Contender, setting: Setting) -> Peak:
    """The resident peak of one call, over what was resident just before it.

    Where it cannot be measured the answer says why: a number that stands for something else
    would be worse than none.
    """
    request = {
        "origin": dict(contender.origin),
        "execution": contender.execution,
        "setting": asdict(setting),
    }
    folder = str(Path(hierarch.__file__).parents[1])
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hierarch.bench.worker"],
            input=json.dumps(request),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return Peak(None, f"it took over {LIMIT} s")
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        return Peak(None, f"its process ended with status {done.returncode}: {said[-1][:200]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Peak(answer["bytes"], answer["why"])
