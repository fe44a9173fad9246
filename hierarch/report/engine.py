"""Which way each part of a network runs for some images, and what refused the faster ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """An operation on behalf of a module, and how it ran."""

    module: str
    """The module's name; "" for the network."""
    operation: str
    way: str
    """How it ran; "definition" for the operation's own body."""
    calls: int
    refused: tuple[tuple[str, str], ...] = ()
    """Each faster way, and why it did not take the call."""

    def to_data(self) -> dict[str, Any]:
        refused = [{"way": way, "reason": reason} for way, reason in self.refused]
        return {**vars(self), "refused": refused}


@dataclass(frozen=True)
class Explanation:
    """What `engine.explain` found, in the order of first calls."""

    steps: tuple[Step, ...]

    def way(self, module: str, operation: str) -> str:
        """How an operation ran on behalf of a module. Raises `KeyError` if it did not run."""
        for step in self.steps:
            if (step.module, step.operation) == (module, operation):
                return step.way
        raise KeyError(f"{operation} of {module!r} did not run")
