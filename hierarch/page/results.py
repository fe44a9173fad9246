"""Results that other commands wrote, read for a page: benchmarks, training runs and grids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierarch.ablation.plotting import plot
from hierarch.errors import DataError, HierarchError
from hierarch.needs import require
from hierarch.page.pictures import Picture, curves, picture
from hierarch.report.ablation import AblationReport
from hierarch.report.bench import BenchReport
from hierarch.report.formats import Block
from hierarch.report.training import TrainReport, TrainReports


@dataclass(frozen=True)
class Finding:
    """What one file says."""

    title: str
    blocks: tuple[Block, ...]
    pictures: tuple[Picture, ...] = ()


def read_bench(path: Path) -> Finding:
    """What `hierarch bench --format json` wrote. Raises `DataError` for a file that is no such."""
    with _reading(path, "what hierarch bench --format json writes"):
        report = BenchReport.from_data(_data(path))
        return Finding(f"Benchmark: {path.name}", tuple(report.blocks()))


def read_results(path: Path) -> Finding:
    """What `hierarch train` or `hierarch ablate` wrote: its folder, or its results.json.

    Raises `DataError` for a file that is no such, and `MissingPackageError` without scipy, by which
    the differences of a grid are worked out again.
    """
    file = path / "results.json" if path.is_dir() else path
    with _reading(file, "a results.json of hierarch train or hierarch ablate"):
        data = _data(file)
        return _grid(data) if "arms" in data else _run(data, file.with_name("metrics.csv"))


def _grid(data: dict[str, Any]) -> Finding:
    require("scipy")
    report = AblationReport.from_data(data)
    drawn = picture(plot(report))
    return Finding(f"Experiment: {report.name}", tuple(report.blocks()), (drawn,))


def _run(data: dict[str, Any], metrics: Path) -> Finding:
    run = TrainReport(**data)
    title, blocks = f"Training: {run.name}", tuple(TrainReports((run,)).blocks())
    rows = _rows(metrics)
    if not rows:
        return Finding(title, blocks)
    return Finding(title, blocks, (picture(curves(run.name, rows)),))


def _rows(metrics: Path) -> list[dict[str, str]]:
    if not metrics.exists():
        return []
    require("filelock")
    from hierarch.train.folder import RunFolder

    return RunFolder(metrics.parent).rows()


def _data(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text("utf-8"))
    if not isinstance(data, dict):
        raise TypeError(f"it holds a {type(data).__name__}")
    return data


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """A file that cannot be read, or that holds something else, in words."""
    try:
        yield
    except HierarchError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not {what}: {type(error).__name__}: {error}") from None
