"""How far a run is: for whoever shows it, and for its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a run is, for whoever shows it."""

    step: int
    steps: int
    epoch: int
    loss: float
    images_per_s: float


@dataclass
class Counts:
    """What a run adds up, and a checkpoint keeps."""

    step: int = 0
    """Steps that are done."""
    losses: float = 0.0
    """Sum over the steps since the last row of metrics."""
    since: int = 0
    """Their number."""
    loss: float | None = None
    """The last row's."""
    broken: int = 0
    best_top1: float | None = None
    best_step: int | None = None
    last: dict[str, float] = field(default_factory=dict)
    """The last evaluation."""
