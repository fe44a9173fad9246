"""`ablate`: every arm of a grid with every seed, and a report on what came of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from hierarch.ablation.cells import Cell, beside
from hierarch.ablation.executors import Executor, Processes
from hierarch.ablation.plan import Arm, Plan, Source, plan
from hierarch.errors import DataError, MissingPackageError
from hierarch.files import write_text
from hierarch.needs import require
from hierarch.report.ablation import AblationReport, ArmRuns, CellRun
from hierarch.report.formats import FORMATS, csv_text, text
from hierarch.spec.load import flow, to_yaml
from hierarch.train.sources import Data, open_data

Advance = Callable[[float, int, str], object]
"""Called with the cells done, parts of them included, their number, and a text."""


def ablate(
    source: Source,
    data: str,
    *,
    run: str | Path | None = None,
    executor: Executor | None = None,
    machine: Mapping[str, Any] | None = None,
    threads: int | None = None,
    data_root: Path = Path("data"),
    download: bool = False,
    skip_broken: bool = False,
    advance: Advance | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> AblationReport:
    """Train every arm of a grid with every seed, and compare them with the reference.

    Each run has a folder in the folder `run` (by default `runs/NAME`), `ARM/seed-SEED`. What is
    finished there is not run again, and what was stopped goes on, so that the same call may be made
    until all is done. A run that fails stops no other. `executor` says where they run, by default
    one after another in processes of this machine; `machine` has fields of
    `hierarch.train.settings.Machine`, by default one device. The folder gets `grid.yaml`,
    `results.json`, `runs.csv`, and the table as .csv, .md and .tex, and as a picture where
    matplotlib is installed.

    Raises `SpecError`, `DataError`, or `TrainError` where the folder holds another grid's runs.

    >>> from hierarch.ablation.cells import run_cell
    >>> class InThisProcess:
    ...     def run(self, cells, done, within):
    ...         for cell in cells:
    ...             done(cell, run_cell(cell))
    >>> grid = {
    ...     "name": "one",
    ...     "base": {
    ...         "input_size": 8,
    ...         "stem": {"type": "patch_embed", "patch_size": 2, "in_chans": 1},
    ...         "mixer": "pooling",
    ...         "stages": [{"dim": 8, "depth": 1}],
    ...     },
    ...     "recipe": {"epochs": 1, "batch_size": 128, "mean": [0.3], "std": [0.35]},
    ...     "seeds": [0],
    ...     "arms": [{"name": "pooling"}, {"name": "identity", "mixer": "identity"}],
    ... }
    >>> cpu = {"accelerator": "cpu"}
    >>> report = ablate(grid, "digits", executor=InThisProcess(), machine=cpu)
    >>> [arm.name for arm in report.arms]
    ['pooling', 'identity']
    """
    require("lightning", "torchvision", "scipy")
    from hierarch.train.folder import RunFolder

    images = open_data(data, root=data_root, download=download)
    if images.held_out is None:
        raise DataError(f"{data} has no held-out images, by which arms could be compared")
    planned = plan(source, classes=len(images.train.classes))
    folder = Path(run or Path("runs") / planned.name)
    for arm in planned.arms:
        if arm.match and arm.match.why:
            note(f"{arm.name}: {'; '.join(arm.match.notes)}")
    with RunFolder(folder).locked():
        cells = [
            _cell(
                arm,
                seed,
                folder=_folder(folder, arm, seed),
                data=data,
                data_root=str(data_root),
                threads=threads,
                machine={"devices": "1", **(machine or {})},
                skip_broken=skip_broken,
            )
            for seed in planned.seeds
            for arm in planned.arms
        ]
        _check(planned, folder, images)
        open_cells = [cell for cell in cells if not RunFolder(cell.folder).results.exists()]
        if done := len(cells) - len(open_cells):
            note(f"{folder}: {done} of {len(cells)} runs are finished already")
        write_text(folder / "grid.yaml", to_yaml(flow(planned.grid)))
        told = _Told(len(cells), done, advance, note)
        (executor or Processes()).run(open_cells, told.done, told.within)
        found = collect(planned, folder, images)
        save(found, folder)
    return found


def _folder(run: Path, arm: Arm, seed: int) -> Path:
    return run / arm.name / f"seed-{seed}"


def _cell(arm: Arm, seed: int, *, folder: Path, **fields: Any) -> Cell:
    return Cell(
        arm=arm.name,
        seed=seed,
        spec=arm.spec.to_data(),
        recipe=arm.recipe.to_data() | {"seed": seed},
        folder=str(folder),
        **fields,
    )


class _Told:
    """What is known of runs that go on beside each other."""

    def __init__(
        self, cells: int, done: int, advance: Advance | None, note: Callable[[str], None]
    ) -> None:
        self.cells, self.ended = cells, done
        self.advance, self.note = advance, note
        self.shares: dict[str, tuple[float, float]] = {}
        self.lock = threading.Lock()

    def done(self, cell: Cell, why: str) -> None:
        with self.lock:
            self.ended += 1
            self.shares.pop(cell.name, None)
            if why:
                self.note(f"{cell.name} failed: {why.splitlines()[0]}")
            self._show()

    def within(self, cell: Cell, share: float, speed: float) -> None:
        with self.lock:
            self.shares[cell.name] = share, speed
            self._show()

    def _show(self) -> None:
        if self.advance:
            running = ", ".join(self.shares)
            speed = sum(speed for _, speed in self.shares.values())
            done = self.ended + sum(share for share, _ in self.shares.values())
            self.advance(done, self.cells, f"{running}  {speed:.0f} images/s")


def _check(planned: Plan, folder: Path, images: Data) -> None:
    """Raise `TrainError` where a folder holds a run of another network, recipe or set of images."""
    from hierarch.train.folder import RunFolder
    from hierarch.train.running import check_same

    for arm in planned.arms:
        for seed in planned.seeds:
            run = RunFolder(_folder(folder, arm, seed))
            if run.begun:
                check_same(run, arm.spec, arm.recipe.model_copy(update={"seed": seed}), images)


def collect(planned: Plan, folder: Path, images: Data) -> AblationReport:
    """What is in the folder of a grid, finished or not."""
    from hierarch.complexity import measure
    from hierarch.train.surroundings import surroundings

    assert images.held_out is not None
    arms = []
    for arm in planned.arms:
        counted = measure(arm.spec, [arm.size])
        arms.append(
            ArmRuns(
                name=arm.name,
                difference=arm.difference,
                params=counted.params,
                macs=counted.sizes[0].macs,
                size=arm.size,
                runs=tuple(_read(_folder(folder, arm, seed), seed) for seed in planned.seeds),
            )
        )
    return AblationReport(
        name=planned.name,
        data=images.name,
        held_out_images=len(images.held_out),
        reference=planned.reference,
        arms=tuple(arms),
        grid=planned.grid,
        about=surroundings(),
    )


def _read(folder: Path, seed: int) -> CellRun:
    from hierarch.train.folder import RunFolder

    run = RunFolder(folder)
    if not run.results.exists():
        told = beside(folder, "failed")
        return CellRun(seed=seed, failed=told.read_text("utf-8").strip() if told.exists() else "")
    results = json.loads(run.results.read_text("utf-8"))
    speeds = [float(row["images_per_s"]) for row in run.rows() if row["images_per_s"]]
    return CellRun(
        seed=seed,
        top1=results["val_top1"],
        top5=results["val_top5"],
        loss=results["val_loss"],
        best_top1=results["best_top1"],
        steps=results["steps"],
        images_per_s=median(speeds) if speeds else None,
    )


def save(found: AblationReport, folder: Path) -> None:
    """Write a report in every format, and its raw results."""
    endings = {"json": "json", "csv": "csv", "markdown": "md", "latex": "tex"}
    assert {*endings, "table"} == {*FORMATS}
    for format, ending in endings.items():
        write_text(folder / f"results.{ending}", text(found, format))
    write_text(folder / "runs.csv", csv_text(found.raw()))
    with suppress(MissingPackageError):  # matplotlib
        from hierarch.ablation.plotting import plot

        plot(found, folder / "results.svg")


def read_results(path: Path) -> AblationReport:
    """The report of a `results.json`. Raises `DataError` for a file that is none, and
    `MissingPackageError` without scipy, by which it is worked out again."""
    require("scipy")
    try:
        return AblationReport.from_data(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is no results.json of a grid: {error}") from None
