"""The report on the validity of spec files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hierarch.errors import Problem
from hierarch.report.formats import Block, Line
from hierarch.report.shown import Shown


@dataclass(frozen=True, kw_only=True)
class ValidatedSpec:
    """One file or preset: the network if it is valid, the problems if it is not."""

    source: str
    name: str | None = None
    stages: int | None = None
    blocks: int | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def valid(self) -> bool:
        return self.name is not None

    def to_data(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "valid": self.valid,
            "name": self.name,
            "stages": self.stages,
            "blocks": self.blocks,
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass(frozen=True)
class Validation(Shown):
    """What `hierarch validate` prints. Problems are in JSON and CSV; for people, the command writes
    them to stderr as one error."""

    specs: tuple[ValidatedSpec, ...]

    def to_data(self) -> list[dict[str, Any]]:
        """One mapping per spec."""
        return [spec.to_data() for spec in self.specs]

    def records(self) -> list[dict[str, Any]]:
        """One record per spec, with its problems as lines of one field."""
        return [
            spec.to_data() | {"problems": "\n".join(map(str, spec.problems))} for spec in self.specs
        ]

    def blocks(self) -> list[Block]:
        """One line per valid spec."""
        return [
            Line(f"{spec.source}: ok, {spec.name}, {spec.stages} stages, {spec.blocks} blocks")
            for spec in self.specs
            if spec.valid
        ]
