"""Where the cells of a grid run: here, on a SLURM cluster by submitit, or on Ray.

Each executor runs cells, in any order, and calls `done` with each cell that ended and why it
failed, or "". It leaves no cell out, and does not stop at one that fails.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hierarch.ablation.cells import Cell, as_json, run_cell
from hierarch.errors import TrainError
from hierarch.needs import require

Done = Callable[[Cell, str], None]
Within = Callable[[Cell, float, float], None]
"""Called with a cell, the share of it that is done, and its images a second."""


class Executor(Protocol):
    """What runs cells.

    >>> class Nowhere:
    ...     def run(self, cells, done, within):
    ...         for cell in cells:
    ...             done(cell, "nothing runs here")
    """

    def run(self, cells: Sequence[Cell], done: Done, within: Within) -> None:
        """Run them all, and return when all have ended."""


class Processes:
    """On this machine, each cell in a process of its own, so many at a time.

    >>> Processes(jobs=2).jobs
    2
    """

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs

    def run(self, cells: Sequence[Cell], done: Done, within: Within) -> None:
        running: set[subprocess.Popen[str]] = set()

        def one(cell: Cell) -> None:
            done(cell, _in_a_process(cell, running, within))

        with ThreadPoolExecutor(self.jobs) as threads:
            futures = [threads.submit(one, cell) for cell in cells]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                for process in tuple(running):
                    process.kill()
                raise


def _in_a_process(cell: Cell, running: set[subprocess.Popen[str]], within: Within) -> str:
    """Why the cell failed, or ""."""
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    why = f"its process ended without a result; see {cell.log}"
    with (
        cell.log.open("a", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", "hierarch.ablation.cells"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
        suppress(BrokenPipeError),  # a process that died before it read anything
    ):
        running.add(process)
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(as_json(cell))
            process.stdin.flush()
            for line in process.stdout:
                told = json.loads(line)
                if "why" in told:
                    why = told["why"]
                else:
                    within(cell, told["done"] / told["total"], told["speed"])
        finally:
            running.discard(process)
    return why


class Submitit:
    """As jobs of a SLURM cluster (submitit), an array of which so many run at a time.

    `cluster` "local" runs the same jobs as processes of this machine. `parameters` are submitit's:
    timeout_min, mem_gb, cpus_per_task, gpus_per_node, slurm_partition, ...

    >>> Submitit(jobs=16, parameters={"slurm_partition": "gpu", "timeout_min": 60}).cluster
    'slurm'
    """

    def __init__(
        self,
        *,
        jobs: int,
        cluster: str = "slurm",
        parameters: Mapping[str, Any] | None = None,
        poll: float = 1.0,
    ) -> None:
        require("submitit", extra="slurm")
        self.jobs, self.cluster, self.poll = jobs, cluster, poll
        self.parameters = dict(parameters or {})

    def run(self, cells: Sequence[Cell], done: Done, within: Within) -> None:
        if not cells:
            return
        submitted = self._executor(Path(cells[0].folder).parents[1]).map_array(run_cell, cells)
        jobs = dict(zip(submitted, cells, strict=True))
        while jobs:
            for job in [job for job in jobs if job.done()]:
                cell = jobs.pop(job)
                done(cell, self._why(job))
            if jobs:
                time.sleep(self.poll)

    def _executor(self, folder: Path) -> Any:
        """submitit's, with its logs in the grid's folder."""
        import submitit

        try:
            executor = submitit.AutoExecutor(folder / "submitit" / "%j", cluster=self.cluster)
            executor.update_parameters(
                slurm_array_parallelism=self.jobs, name=folder.name, **self.parameters
            )
        except (RuntimeError, ValueError, NameError) as error:
            raise TrainError(f"submitit refuses this: {error}") from None
        return executor

    def _why(self, job: Any) -> str:
        try:
            why: str = job.result()
        except Exception as error:  # of the cluster: out of time, lost, canceled
            reason = str(error).strip().splitlines()
            return f"job {job.job_id}: {reason[-1] if reason else type(error).__name__}"
        return why


class Ray:
    """As tasks of a Ray cluster, at `address`, or of one on this machine that runs so many at a
    time. `cpus` and `gpus` are those of one run."""

    def __init__(
        self, *, jobs: int = 1, cpus: float = 1, gpus: float = 0, address: str | None = None
    ) -> None:
        require("ray", extra="ray")
        import ray

        if not ray.is_initialized():
            ray.init(
                address=address,
                num_cpus=None if address else math.ceil(jobs * cpus),
                include_dashboard=False,
                log_to_driver=False,
            )
        self.task = ray.remote(run_cell).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)

    def run(self, cells: Sequence[Cell], done: Done, within: Within) -> None:
        import ray

        tasks = {self.task.remote(cell): cell for cell in cells}
        while tasks:
            [ready], _ = ray.wait(list(tasks), num_returns=1)
            cell = tasks.pop(ready)
            try:
                why = ray.get(ready)
            except ray.exceptions.RayError as error:
                why = str(error).strip().splitlines()[0]
            done(cell, why)
