"""Programs of torch.export (.pt2), run by torch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from hierarch.exporting.target import Job, Run, Target

METADATA = "hierarch.json"
"""The name of the file inside the archive."""


def write(job: Job, path: Path) -> None:
    files = {METADATA: json.dumps(dict(job.metadata), ensure_ascii=False)}
    torch.export.save(job.program, path, extra_files=files)


def load(path: Path, threads: int, dtype: str) -> Run:
    """On torch's own number of threads."""
    network = torch.export.load(path).module()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            outputs = network(images)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

    return run


TARGET = Target(
    name="torch-export",
    runtime="torch",
    suffix=".pt2",
    packages=(),
    dtypes={"float32": (), "float16": (), "bfloat16": ()},
    casts=("float16", "bfloat16"),
    dynamic=True,
    write=write,
    load=load,
)
