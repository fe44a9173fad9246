"""What else a result depends on: versions, machine, and the state of git."""

from __future__ import annotations

import subprocess
from importlib import metadata
from typing import Any


def surroundings() -> dict[str, Any]:
    """Versions, machine and git state: what else a result depends on."""
    import platform

    import torch

    import hierarch
    from hierarch.bench.machine import processor

    packages = ("torchvision", "lightning", "numpy", "pillow")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {
            "python": platform.python_version(),
            "hierarch": hierarch.__version__,
            "torch": str(torch.__version__),
            **{name: metadata.version(name) for name in packages},
        },
        "machine": {
            "processor": processor(),
            "devices": devices,
            "threads": torch.get_num_threads(),
            "system": platform.platform(),
        },
        "git": _git(),
    }


def _git() -> dict[str, Any] | None:
    """The commit of the working directory, and whether it has changes; None without git."""
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(
                ["git", *command], capture_output=True, text=True, check=True, timeout=30
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changes)}
