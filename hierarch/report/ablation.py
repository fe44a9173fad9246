"""What a grid of runs came to: every arm's accuracy, and what the differences show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hierarch.report.formats import Block, Line, Paragraph, Table
from hierarch.report.shown import Shown
from hierarch.report.tables import giga, shown_size, sides_by_name
from hierarch.spec.grid import Sides
from hierarch.statistics import Difference, Summary, differences, summary

LEGEND = (
    "top-1 of the held-out images, in percent, of the final weights: mean ± standard deviation "
    "over seeds, and the 95 % interval of the mean. The difference to {reference} is taken seed by "
    "seed, with its own 95 % interval. Better and worse are said where a paired t test shows it at "
    "5 % for all comparisons of the table together (Holm), from 3 seeds on; p is held to that. The "
    "intervals are over seeds: other images would move all of them. MACs for one image of "
    "training, counted by fvcore; images/s in training."
)


@dataclass(frozen=True, kw_only=True)
class CellRun:
    """One run: an arm with one seed.

    >>> CellRun(seed=0, top1=0.595).failed
    ''
    """

    seed: int
    top1: float | None = None
    """Of the held-out images, from 0 to 1, of the final weights."""
    top5: float | None = None
    loss: float | None = None
    """Of the held-out images."""
    best_top1: float | None = None
    """Of the best evaluation, which is not used for anything here: it was chosen by its result."""
    steps: int | None = None
    images_per_s: float | None = None
    """In training, without evaluations: the median over the rows of metrics.csv."""
    failed: str = ""
    """Why there is no result; empty where there is one, and where the run has yet to end."""


@dataclass(frozen=True, kw_only=True)
class ArmRuns:
    """One network, with all its seeds.

    >>> runs = (CellRun(seed=0, top1=0.5), CellRun(seed=1, failed="no memory"))
    >>> ArmRuns(name="pooling", difference=(), params=9, macs=9, size=(8, 8), runs=runs).top1
    {0: 0.5}
    """

    name: str
    difference: tuple[str, ...]
    """From the reference, in words."""
    params: int
    macs: int
    """For one image of training."""
    size: Sides
    """Of that image, in pixels."""
    runs: tuple[CellRun, ...]

    @property
    def top1(self) -> dict[int, float]:
        """By seed."""
        return {run.seed: run.top1 for run in self.runs if run.top1 is not None}

    @property
    def images_per_s(self) -> float | None:
        """The mean over seeds."""
        speeds = [run.images_per_s for run in self.runs if run.images_per_s]
        return sum(speeds) / len(speeds) if speeds else None


@dataclass(frozen=True, kw_only=True)
class AblationReport(Shown):
    """What `hierarch ablate` prints, and everything that it follows from.

    >>> runs = tuple(CellRun(seed=i, top1=top1) for i, top1 in enumerate((0.5, 0.52, 0.51)))
    >>> arm = ArmRuns(name="pooling", difference=(), params=9, macs=9, size=(8, 8), runs=runs)
    >>> common = {"name": "one", "data": "digits", "held_out_images": 360, "grid": {}, "about": {}}
    >>> report = AblationReport(reference="pooling", arms=(arm,), **common)
    >>> round(report.summaries["pooling"].mean, 2)
    0.51
    """

    name: str
    data: str
    held_out_images: int
    reference: str
    arms: tuple[ArmRuns, ...]
    grid: dict[str, Any]
    """What was run, in one mapping: `hierarch ablate` takes it."""
    about: dict[str, Any]
    """Versions, machine, git state."""

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Of each arm that has a result."""
        step = 1 / self.held_out_images
        return {
            arm.name: summary([*arm.top1.values()], resolution=step)
            for arm in self.arms
            if arm.top1
        }

    @cached_property
    def against(self) -> dict[str, Difference]:
        """Each arm less the reference."""
        found = {arm.name: arm.top1 for arm in self.arms}
        return differences(found, self.reference, resolution=1 / self.held_out_images)

    @property
    def failed(self) -> list[tuple[str, CellRun]]:
        """The runs that failed, with their arms."""
        return [(arm.name, run) for arm in self.arms for run in arm.runs if run.failed]

    def to_data(self) -> dict[str, Any]:
        """The raw results, and what follows from them."""
        return {
            "schema_version": 1,
            **{k: v for k, v in asdict(self).items() if k != "arms"},
            "arms": [
                asdict(arm)
                | {
                    "top1": _as_data(self.summaries.get(arm.name)),
                    "against_reference": _as_data(self.against.get(arm.name)),
                }
                for arm in self.arms
            ],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> AblationReport:
        """What `to_data` wrote. What follows from the raw results is worked out again."""
        fields = {k: v for k, v in data.items() if k not in ("schema_version", "arms")}
        arms = tuple(
            ArmRuns(
                name=arm["name"],
                difference=tuple(arm["difference"]),
                params=arm["params"],
                macs=arm["macs"],
                size=tuple(arm["size"]),
                runs=tuple(CellRun(**run) for run in arm["runs"]),
            )
            for arm in data["arms"]
        )
        return cls(arms=arms, **fields)

    def raw(self) -> list[dict[str, Any]]:
        """One record per run."""
        return [{"arm": arm.name, **asdict(run)} for arm in self.arms for run in arm.runs]

    def records(self) -> list[dict[str, Any]]:
        """One record per arm."""
        return [self._record(arm) for arm in self.arms]

    def _record(self, arm: ArmRuns) -> dict[str, Any]:
        own, against = self.summaries.get(arm.name), self.against.get(arm.name)
        return {
            "arm": arm.name,
            "seeds": len(arm.top1),
            **_flat("top1", own, Summary),
            **_flat("difference", against, Difference),
            "params": arm.params,
            "macs": arm.macs,
            **sides_by_name(arm.size),
            "images_per_s": arm.images_per_s,
            "words": " | ".join(arm.difference),
        }

    def blocks(self) -> list[Block]:
        """The table, how the networks differ in words, what failed, and what the columns mean."""
        words = [
            Paragraph(". ".join(arm.difference) or "the same network", lead=arm.name)
            for arm in self.arms
            if arm.name != self.reference
        ]
        failed: list[Block] = [
            Line(f"{arm}, seed {run.seed}: {run.failed.splitlines()[0]}")
            for arm, run in self.failed
        ]
        if failed:
            failed.insert(0, Paragraph(f"{len(failed)}, for these reasons", lead="failed"))
        legend = LEGEND.format(reference=self.reference)
        rows = [self._row(arm) for arm in self.arms]
        return [Table(rows, f"{self.name} on {self.data}"), *words, *failed, Paragraph(legend)]

    def _row(self, arm: ArmRuns) -> dict[str, str]:
        own, against = self.summaries.get(arm.name), self.against.get(arm.name)
        sizes = {shown_size(other.size) for other in self.arms}
        is_first = arm.name == self.reference
        return {
            "network": arm.name,
            "seeds": str(len(arm.top1)),
            "top-1": _mean(own),
            "95 %": _interval(own),
            "difference": "" if against is None else f"{100 * against.mean:+.2f}",
            "its 95 %": _interval(against, signed=True),
            "p": "" if against is None else _probability(against.adjusted),
            "shown": "reference" if is_first else against.word if against else "no result",
            "params": f"{arm.params:,}",
            "GMACs": giga(arm.macs),
            **({"image": shown_size(arm.size)} if len(sizes) > 1 else {}),
            "images/s": "-" if arm.images_per_s is None else f"{arm.images_per_s:,.0f}",
        }


def _as_data(value: Summary | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _flat(prefix: str, value: Summary | None, cls: type[Summary]) -> dict[str, Any]:
    fields = [name for name in cls.__dataclass_fields__ if name != "count"]
    return {f"{prefix}_{name}": None if value is None else getattr(value, name) for name in fields}


def _mean(value: Summary | None) -> str:
    if value is None:
        return "-"
    spread = "" if value.sd is None else f" ± {100 * value.sd:.2f}"
    return f"{100 * value.mean:.2f}{spread}"


def _probability(p: float | None) -> str:
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _interval(value: Summary | None, *, signed: bool = False) -> str:
    if value is None or value.low is None or value.high is None:
        return ""
    sign = "+" if signed else ""
    return f"{100 * value.low:{sign}.2f} to {100 * value.high:{sign}.2f}"
