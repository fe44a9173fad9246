"""The report on a spec's network: MACs claimed and counted at each image size, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hierarch.report.cost import HEADINGS, By, Cost, CostReport, Item, breakdown, growth, totals
from hierarch.report.formats import Table
from hierarch.report.tables import Row, giga, shown_size
from hierarch.spec.grid import Sides

Verdict = Literal["linear", "superlinear", "unproven"]


@dataclass(frozen=True)
class StageReport:
    """One stage at one image size: `macs` counted by fvcore, `claimed_macs` by the formulas.

    >>> from hierarch import measure
    >>> stage = measure("swin_tiny", sizes=[224]).sizes[0].stages[0]
    >>> stage.grid, stage.macs, sorted(stage.parts)
    ((56, 56), 758661120, ['downsampling', 'mixer', 'mlp', 'norm', 'position'])
    """

    index: int
    dim: int
    depth: int
    grid: Sides
    macs: int
    claimed_macs: int
    parts: dict[str, int]
    """MACs of the stage's downsampling, norms, mixers and MLPs, by those names."""
    claimed_parts: dict[str, int]

    @property
    def macs_per_token(self) -> float:
        return self.macs / math.prod(self.grid)

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "dim": self.dim,
            "depth": self.depth,
            "grid": list(self.grid),
            "macs": self.macs,
            "claimed_macs": self.claimed_macs,
            "macs_per_token": self.macs_per_token,
            "parts": self.parts,
        }


def _sums(dicts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {key: sum(d[key] for d in dicts) for key in dicts[0]}


@dataclass(frozen=True, kw_only=True)
class SizeReport(Cost):
    """A spec's network at one image size.

    >>> from hierarch import measure
    >>> [size] = measure("swin_tiny", sizes=[225]).sizes
    >>> size.macs == size.claimed_macs, round(size.padding_share(), 3)
    (True, 0.245)
    """

    claimed_macs: int
    padding_macs: int
    stages: tuple[StageReport, ...]
    stem: int
    claimed_stem: int
    claimed_head: int

    @property
    def parts(self) -> dict[str, int]:
        """MACs by part, summed over the stages."""
        stages = [stage.parts for stage in self.stages]
        return {"stem": self.stem, **_sums(stages), "head": self.head}

    @property
    def claimed_parts(self) -> dict[str, int]:
        """Claimed MACs by part, summed over the stages."""
        stages = [stage.claimed_parts for stage in self.stages]
        return {"stem": self.claimed_stem, **_sums(stages), "head": self.claimed_head}

    def items(self, by: By) -> list[Item]:
        """One breakdown and the total. Operators and modules have no claim of their own."""
        total = ("total", self.macs, self.claimed_macs)
        if by == "stage":
            stem, head = (
                ("stem", self.stem, self.claimed_stem),
                ("head", self.head, self.claimed_head),
            )
            stages = [(str(stage.index), stage.macs, stage.claimed_macs) for stage in self.stages]
            return [stem, *stages, head, total]
        if by == "part":
            return [*((k, macs, self.claimed_parts[k]) for k, macs in self.parts.items()), total]
        costs = self.operators if by == "operator" else self.modules
        return [*((name or "(all)", macs, "") for name, macs in costs.items()), total]

    def padding_share(self) -> float:
        return self.padding_macs / self.macs

    def to_dict(self, *, by: By = "stage") -> dict[str, Any]:
        return {
            "size": list(self.size),
            "macs": self.macs,
            "claimed_macs": self.claimed_macs,
            "activations": self.activations,
            "padding_macs": self.padding_macs,
            "stages": [stage.to_dict() for stage in self.stages],
            "stem": self.stem,
            "head": self.head,
            **self.extra(by),
        }


@dataclass(frozen=True)
class Report(CostReport[SizeReport]):
    """A network's cost at several image sizes, and whether it is linear in the image's area.

    >>> from hierarch import measure
    >>> report = measure("swin_tiny", sizes=[224, 448])
    >>> report.verdict, report.params, round(report.exponent, 3)
    ('linear', 28288354, 1.0)
    """

    verdict: Verdict

    def style(self) -> str:
        return {"linear": "bold green", "superlinear": "bold red"}.get(self.verdict, "bold yellow")

    def size_rows(self) -> list[Row]:
        return [
            totals(size)
            | {
                "claim": "equal" if size.macs == size.claimed_macs else giga(size.claimed_macs),
                "padding": f"{size.padding_share():.1%}",
            }
            | grown
            for size, grown in zip(self.sizes, growth(self.sizes), strict=True)
        ]

    def breakdown(self, by: By) -> Table:
        if by == "stage":
            return Table(self._stage_rows(), HEADINGS[by])
        costs = [
            (size.size, {"part": size.parts, "operator": size.operators}.get(by, size.modules))
            for size in self.sizes
        ]
        return Table(breakdown(by, costs), HEADINGS[by])

    def _stage_rows(self) -> list[Row]:
        """One row per stage: MACs per token by image size, constant where the cost is linear."""
        return [
            {
                "stage": str(stage.index),
                "dim": str(stage.dim),
                "depth": str(stage.depth),
                **{
                    shown_size(size.size): f"{size.stages[i].macs_per_token:,.0f}"
                    for size in self.sizes
                },
            }
            for i, stage in enumerate(self.sizes[0].stages)
        ]
