"""`hierarch ablate`: a grid of networks and seeds, and whether the differences are by chance."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierarch.cli.common import Format, format_option, write
from hierarch.cli.progress import progress
from hierarch.cli.train import (
    accelerator_option,
    download_option,
    root_option,
    skip_option,
    workers_option,
)
from hierarch.errors import TrainError

if TYPE_CHECKING:
    from hierarch.ablation.executors import Executor


class Where(StrEnum):
    """Where runs go: processes of this machine, jobs of a SLURM cluster, or tasks of Ray."""

    here = "here"
    slurm = "slurm"
    ray = "ray"


def ablate(
    grid: Annotated[
        str, typer.Argument(metavar="GRID", help="A grid's YAML file, or a grid's results.json.")
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="SOURCE", help="Images, as hierarch train takes them."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="The folder; runs/NAME, if not given.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of each run; cores / jobs.")
    ] = None,
    on: Annotated[
        Where, typer.Option("--on", help="Processes here, a SLURM cluster, or Ray.")
    ] = Where.here,
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster",
            metavar="KEY=VALUE",
            help="With slurm, submitit's parameters: timeout_min=60, slurm_partition=gpu; with "
            "ray: address, cpus, gpus of a run. Repeatable.",
        ),
    ] = None,
    data_root: root_option = Path("data"),
    download: download_option = False,
    skip_broken: skip_option = False,
    workers: workers_option = 0,
    accelerator: accelerator_option = "auto",
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the picture here: .svg, .png or .pdf.")
    ] = None,
    format: format_option = Format.table,
) -> None:
    """Train every network of a grid with every seed, and say which differences are shown.

    The same command goes on after a stop; finished runs are not run again. Exit status 1: a run
    failed. A results.json, without --data, is printed.

    Example: hierarch ablate grid.yaml --data cifar10 --jobs 2
    """
    from hierarch.ablation.running import ablate as run_all
    from hierarch.ablation.running import read_results

    if data is None:
        if not grid.endswith(".json"):
            raise TrainError("a grid needs images: give --data, as for hierarch train")
        report = read_results(Path(grid))
    else:
        with progress("ablation") as draw, redirect_stdout(sys.stderr):
            report = run_all(
                grid,
                data,
                run=run,
                executor=_executor(on, jobs, cluster or []),
                machine={"accelerator": accelerator, "workers": workers},
                threads=threads or _share(on, jobs),
                data_root=data_root,
                download=download,
                skip_broken=skip_broken,
                advance=draw,
                note=lambda text: typer.echo(text, err=True),
            )
    if plot is not None:
        from hierarch.ablation.plotting import plot as draw_to

        draw_to(report, plot)
    write(report, format)
    if report.failed:
        raise typer.Exit(1)


def _executor(on: Where, jobs: int, options: list[str]) -> Executor:
    from hierarch.ablation.executors import Processes, Ray, Submitit
    from hierarch.spec.overrides import parse_assignment

    values: dict[str, Any] = {}
    for text in options:
        keys, value = parse_assignment(text)
        values[".".join(keys)] = value
    if on == Where.slurm:
        cluster = values.pop("cluster", "slurm")
        return Submitit(jobs=jobs, cluster=cluster, parameters=values)
    if unknown := values.keys() - ({"address", "cpus", "gpus"} if on == Where.ray else set()):
        raise TrainError(f"--cluster {min(unknown)}: has no meaning with --on {on.value}")
    return Ray(jobs=jobs, **values) if on == Where.ray else Processes(jobs)


def _share(on: Where, jobs: int) -> int | None:
    """Threads of a run, of those that run beside each other on this machine."""
    import os

    if on != Where.here or jobs == 1:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // jobs)
