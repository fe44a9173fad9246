"""ExecuTorch's programs (.pte), for phones and small devices, lowered to XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from hierarch.exporting.target import Job, Run, Target


def write(job: Job, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        job.program,
        partitioner=[XnnpackPartitioner()],
        constant_methods={key.replace(".", "_"): value for key, value in job.metadata.items()},
    )
    path.write_bytes(lowered.to_executorch().buffer)


def load(path: Path, threads: int, dtype: str) -> Run:
    """On ExecuTorch's own number of threads."""
    from executorch.runtime import Runtime

    loaded = Runtime.get().load_program(path)
    forward: Any = loaded.load_method("forward")

    def run(images: Tensor) -> tuple[Tensor, ...]:
        # what it returns is overwritten by the next call
        return tuple(output.clone() for output in forward.execute([images]))

    return run


TARGET = Target(
    name="executorch",
    runtime="executorch",
    suffix=".pte",
    packages=("executorch",),
    extra="executorch",
    dtypes={"float32": ()},
    dynamic=False,
    write=write,
    load=load,
)
