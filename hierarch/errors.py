"""The exceptions for user errors. Messages say what is wrong, where, and what is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class HierarchError(ValueError):
    """A user error: the command line prints it and exits with status 2.

    >>> from hierarch import load
    >>> load("swin_tinny")
    Traceback (most recent call last):
    ...
    hierarch.errors.SpecError: ...
    >>> issubclass(SpecError, HierarchError) and issubclass(HierarchError, ValueError)
    True
    """


@dataclass(frozen=True)
class Problem:
    """A mistake in a spec. Lines and columns count from 1; 0 if there is no file.

    >>> print(Problem("should be at least 1", path="stages[0].depth", line=5, column=12))
    stages[0].depth: should be at least 1
    """

    message: str
    path: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(HierarchError):
    """A spec that cannot be read, or that describes no network.

    >>> from hierarch import load
    >>> load({"stages": [{"dim": 96, "depth": 2}], "mixer": {"type": "poling"}})
    Traceback (most recent call last):
    ...
    hierarch.errors.SpecError: mixer.type: unknown mixer 'poling', did you mean 'pooling'?
    """

    SHOWN = 8

    def __init__(self, problems: list[Problem] | str, *, source: str = "") -> None:
        if isinstance(problems, str):
            problems = [Problem(problems)]
        self.problems = tuple(problems)
        self.source = source
        lines = [self._line(problem) for problem in self.problems[: self.SHOWN]]
        if len(self.problems) > self.SHOWN:
            lines.append(f"... and {len(self.problems) - self.SHOWN} more")
        super().__init__("\n".join(lines))

    def _line(self, problem: Problem) -> str:
        place = [str(part) for part in (self.source, problem.line, problem.column) if part]
        return f"{':'.join(place)}: {problem}" if place else str(problem)


class WeightsError(HierarchError):
    """A checkpoint that does not fit the model, or that cannot be read safely.

    >>> from hierarch import infer
    >>> infer({"what.is.this": None})
    Traceback (most recent call last):
    ...
    hierarch.errors.WeightsError: ...
    """


class CountError(HierarchError):
    """A network with an operator that has no rule, so that its cost cannot be counted.

    >>> issubclass(CountError, HierarchError)
    True
    """


class PeerError(HierarchError):
    """A network of another library that is unknown, that does not accept an image size, or that no
    spec describes.

    >>> from hierarch import measure_peer
    >>> measure_peer("torchvision:swinn_t")
    Traceback (most recent call last):
    ...
    hierarch.errors.PeerError: ...
    """


class FormatError(HierarchError):
    """An unknown report format.

    >>> from hierarch.report import Listing, text
    >>> text(Listing(()), "yaml")
    Traceback (most recent call last):
    ...
    hierarch.errors.FormatError: unknown report format 'yaml'; known: table, json, ...
    """


class BenchError(HierarchError):
    """A benchmark with invalid options, or one that fails.

    >>> from hierarch import benchmark
    >>> benchmark([])
    Traceback (most recent call last):
    ...
    hierarch.errors.BenchError: no spec to benchmark
    """


class DataError(HierarchError):
    """Images that are missing, that cannot be read, or that do not fit the network.

    >>> from hierarch.train.sources import open_data
    >>> open_data("nowhere")
    Traceback (most recent call last):
    ...
    hierarch.errors.DataError: no such folder, file or dataset: 'nowhere', ...
    """


class TrainError(HierarchError):
    """A run that cannot start, or that cannot continue.

    >>> from hierarch.train.networks import open_network
    >>> open_network("swin_tiny")
    Traceback (most recent call last):
    ...
    hierarch.errors.TrainError: swin_tiny: is a spec; give its weights with --weights
    """


class PlotError(HierarchError):
    """A plot that cannot be drawn of what it was given.

    >>> from hierarch.plots import drawer
    >>> drawer("costs")
    Traceback (most recent call last):
    ...
    hierarch.errors.PlotError: unknown kind of plot 'costs'; known: architecture, attention, ...
    """


class MissingPackageError(HierarchError, ImportError):
    """An optional package that is not installed.

    >>> from hierarch.needs import require
    >>> require("no_such_package", extra="train")
    Traceback (most recent call last):
    ...
    hierarch.errors.MissingPackageError: ...
    """


class ExportError(HierarchError):
    """A network that cannot be exported, or that computes something else in its runtime.

    `report` is the comparison, where it came to one.

    >>> from hierarch import build, export
    >>> model = build({"mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]})
    >>> export(model, "a.file", to="paper")
    Traceback (most recent call last):
    ...
    hierarch.errors.ExportError: unknown target 'paper'; known: executorch, onnx, ...
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report
