"""The exceptions for user errors. Messages say what is wrong, where, and what is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class HierarchError(ValueError):
    """A user error: the command line prints it and exits with status 2."""


@dataclass(frozen=True)
class Problem:
    """A mistake in a spec. Lines and columns count from 1; 0 if there is no file."""

    message: str
    path: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(HierarchError):
    """A spec that cannot be read, or that describes no network."""

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
    """A checkpoint that does not fit the model, or that cannot be read safely."""


class CountError(HierarchError):
    """A network with an operator that has no rule, so that its cost cannot be counted."""


class PeerError(HierarchError):
    """A network of another library that is unknown, that does not accept an image size, or that no
    spec describes."""


class FormatError(HierarchError):
    """An unknown report format."""


class BenchError(HierarchError):
    """A benchmark with invalid options, or one that fails."""


class DataError(HierarchError):
    """Images that are missing, that cannot be read, or that do not fit the network."""


class TrainError(HierarchError):
    """A run that cannot start, or that cannot continue."""


class MissingPackageError(HierarchError, ImportError):
    """An optional package that is not installed."""


class ExportError(HierarchError):
    """A network that cannot be exported, or that computes something else in its runtime.

    `report` is the comparison, where it came to one.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report
