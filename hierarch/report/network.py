"""The report on a spec: claim and count at each image size, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from hierarch.report.cost import (
    HEADINGS,
    UNIT,
    By,
    Cost,
    Item,
    breakdown,
    fit_line,
    growth,
    totals,
)
from hierarch.report.tables import Row, giga, markdown, shown_size, table
from hierarch.spec.base import Pair

Verdict = Literal["linear", "superlinear", "unproven"]


@dataclass(frozen=True)
class StageReport:
    """One stage at one size. `macs` were counted by fvcore, `claimed_macs` is the formulas' sum."""

    index: int
    dim: int
    depth: int
    grid: Pair
    macs: int
    claimed_macs: int
    parts: dict[str, int]
    """MACs of the stage's downsampling, norm, mixer and mlp."""
    claimed_parts: dict[str, int]

    @property
    def macs_per_token(self) -> float:
        return self.macs / math.prod(self.grid)


def _sums(dicts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {key: sum(d[key] for d in dicts) for key in dicts[0]}


@dataclass(frozen=True, kw_only=True)
class SizeReport(Cost):
    """A spec's network at one image size."""

    claimed_macs: int
    padding_macs: int
    stages: tuple[StageReport, ...]
    stem: int
    claimed_stem: int
    claimed_head: int

    @property
    def parts(self) -> dict[str, int]:
        """MACs by part, over all stages."""
        stages = [stage.parts for stage in self.stages]
        return {"stem": self.stem, **_sums(stages), "head": self.head}

    @property
    def claimed_parts(self) -> dict[str, int]:
        """The claim by part, over all stages."""
        stages = [stage.claimed_parts for stage in self.stages]
        return {"stem": self.claimed_stem, **_sums(stages), "head": self.claimed_head}

    def items(self, by: By) -> list[Item]:
        """One breakdown and the total; an operator or a module has no claim of its own."""
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


@dataclass(frozen=True)
class Report:
    """A network's cost at several image sizes, and whether it is linear in the image's area."""

    name: str
    params: int
    sizes: tuple[SizeReport, ...]
    exponent: float | None
    """Of the MACs without the head over the pixels; None where only one area was measured."""
    r2: float | None
    verdict: Verdict
    why: str

    def to_dict(self, *, by: By = "stage") -> dict[str, Any]:
        """As `hierarch flops --format json` writes it."""
        return {
            "name": self.name,
            "params": self.params,
            "sizes": [_size_dict(size, by) for size in self.sizes],
            "fit": {"exponent": self.exponent, "r2": self.r2},
            "verdict": self.verdict,
            "why": self.why,
        }

    def render(self, *, by: By = "stage") -> RenderableType:
        """Tables for a terminal."""
        style = {"linear": "bold green", "superlinear": "bold red"}.get(self.verdict, "bold yellow")
        return Group(
            Text.assemble((self.name, "bold"), f"  {self.params:,} parameters"),
            Text(""),
            table(_size_rows(self)),
            Text(f"\n{HEADINGS[by]}"),
            table(BREAKDOWNS[by](self)),
            Text(""),
            Text.assemble((self.verdict, style), f": {self.why}"),
            Text(fit_line(self.exponent, self.r2, self.sizes)),
            Text(UNIT),
        )

    def markdown(self, *, by: By = "stage") -> str:
        """The same as Markdown."""
        head = f"**{self.name}**: {self.params:,} parameters; {self.verdict}: {self.why}"
        rows = _size_rows(self), BREAKDOWNS[by](self)
        return "\n\n".join([head, markdown(rows[0]), f"{HEADINGS[by]}:", markdown(rows[1])])

    def __rich__(self) -> RenderableType:
        return self.render()


def _size_dict(size: SizeReport, by: By) -> dict[str, Any]:
    extra = {"operator": {"operators": size.operators}, "module": {"modules": size.modules}}
    return {
        "size": list(size.size),
        "macs": size.macs,
        "claimed_macs": size.claimed_macs,
        "activations": size.activations,
        "padding_macs": size.padding_macs,
        "stages": [
            {
                "index": stage.index,
                "dim": stage.dim,
                "depth": stage.depth,
                "grid": list(stage.grid),
                "macs": stage.macs,
                "claimed_macs": stage.claimed_macs,
                "macs_per_token": stage.macs_per_token,
                "parts": stage.parts,
            }
            for stage in size.stages
        ],
        "stem": size.stem,
        "head": size.head,
        **extra.get(by, {}),
    }


def _size_rows(report: Report) -> list[Row]:
    """One row per image size: the totals, and their growth from size to size beside the area's."""
    return [
        totals(size)
        | {
            "claim": "equal" if size.macs == size.claimed_macs else giga(size.claimed_macs),
            "padding": f"{size.padding_macs / size.macs:.1%}",
        }
        | grown
        for size, grown in zip(report.sizes, growth(report.sizes), strict=True)
    ]


def _stage_rows(report: Report) -> list[Row]:
    """One row per stage: MACs per token at each size, which is flat where the cost is linear."""
    return [
        {
            "stage": str(stage.index),
            "dim": str(stage.dim),
            "depth": str(stage.depth),
            **{
                shown_size(size.size): f"{size.stages[i].macs_per_token:,.0f}"
                for size in report.sizes
            },
        }
        for i, stage in enumerate(report.sizes[0].stages)
    ]


def _rows_of(label: str, costs: Callable[[SizeReport], dict[str, int]]) -> Any:
    def rows(report: Report) -> list[Row]:
        return breakdown(label, [(size.size, costs(size)) for size in report.sizes])

    return rows


BREAKDOWNS: dict[By, Callable[[Report], list[Row]]] = {
    "stage": _stage_rows,
    "part": _rows_of("part", lambda size: size.parts),
    "operator": _rows_of("operator", lambda size: size.operators),
    "module": _rows_of("module", lambda size: size.modules),
}
