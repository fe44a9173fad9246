"""Which way each part of a network runs for some images, and what refused the faster ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from hierarch.report.formats import Block, Line, Table
from hierarch.report.shown import Shown
from hierarch.report.tables import Row

BLOCK = re.compile(r"\bblocks\.(\d+)")


@dataclass(frozen=True)
class Step:
    """An operation on behalf of a module, and how it ran.

    >>> step = Step("stages.0", "Stage.forward", "definition", 1, (("streamed", "autograd is on"),))
    >>> step.reasons
    'streamed: autograd is on'
    """

    module: str
    """The module's name; "" for the network."""
    operation: str
    way: str
    """How it ran; "definition" for the operation's own body."""
    calls: int
    refused: tuple[tuple[str, str], ...] = ()
    """Each faster way for such a call, and why it did not take it."""

    def to_data(self) -> dict[str, Any]:
        refused = [{"way": way, "reason": reason} for way, reason in self.refused]
        return {**vars(self), "refused": refused}

    @property
    def reasons(self) -> str:
        """What refused the faster ways, in one line: `streamed: autograd is on`."""
        return "; ".join(f"{way}: {reason}" for way, reason in self.refused)


@dataclass(frozen=True)
class Explanation(Shown):
    """What `engine.explain` found, in the order of first calls.

    >>> found = Explanation((Step("stages.0", "Stage.forward", "streamed", 1),))
    >>> found.way("stages.0", "Stage.forward")
    'streamed'
    """

    steps: tuple[Step, ...]
    of: str = ""
    """What ran: the network and the images, for a heading."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """Bytes that the engine keeps after it, by what they hold."""

    def way(self, module: str, operation: str) -> str:
        """How an operation ran on behalf of a module. Raises `KeyError` if it did not run."""
        for step in self.steps:
            if (step.module, step.operation) == (module, operation):
                return step.way
        raise KeyError(f"{operation} of {module!r} did not run")

    def to_data(self) -> dict[str, Any]:
        """The steps, with what ran and the bytes that are kept."""
        steps = [step.to_data() for step in self.steps]
        return {"of": self.of, "steps": steps, "kept": dict(self.kept)}

    def records(self) -> list[Row]:
        """One record per step."""
        return [
            {"of": self.of, **vars(step), "refused": step.reasons, "calls": str(step.calls)}
            for step in self.steps
        ]

    def blocks(self) -> list[Block]:
        """A table, in which blocks of a stage that run alike share a row (`blocks.0-5`), and a line
        of what is kept."""
        alike: dict[tuple[str, ...], list[Step]] = {}
        for step in self.steps:
            texts = (step.module, step.operation, step.way, step.reasons)
            alike.setdefault(tuple(BLOCK.sub("blocks.*", text) for text in texts), []).append(step)
        rows = [
            {
                "module": module.replace("blocks.*", f"blocks.{_numbers(steps)}") or "the network",
                "operation": operation,
                "runs": way,
                "calls": f"{sum(step.calls for step in steps):,}",
                "refused": reasons,
            }
            for (module, operation, way, reasons), steps in alike.items()
        ]
        held = ", ".join(f"{what} {n / 2**20:,.1f} MiB" for what, n in self.kept.items() if n)
        return [Table(rows, self.of, keys=2), *([Line(f"kept: {held}")] if held else [])]


@dataclass(frozen=True)
class Explanations(Shown):
    """Explanations of several networks, or of one for several batches of images."""

    found: tuple[Explanation, ...]

    def to_data(self) -> list[dict[str, Any]]:
        """One mapping per explanation."""
        return [explanation.to_data() for explanation in self.found]

    def records(self) -> list[Row]:
        """One record per step."""
        return [record for explanation in self.found for record in explanation.records()]

    def blocks(self) -> list[Block]:
        """One table per explanation."""
        return [block for explanation in self.found for block in explanation.blocks()]


def _numbers(steps: Sequence[Step]) -> str:
    """The blocks that steps belong to: `3`, `0-5`, or `0,2,4`."""
    numbers = sorted({int(i) for step in steps for i in BLOCK.findall(step.module)})
    runs = [list(run) for _, run in groupby(numbers, lambda n: n - numbers.index(n))]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
