"""What was measured, as data, and how it is shown. Knows neither torch nor fvcore."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hierarch.spec.base import Pair

Verdict = Literal["linear", "superlinear", "unproven"]
By = Literal["stage", "part", "operator", "module"]


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


@dataclass(frozen=True)
class SizeReport:
    """A network at one image size; all costs are MACs for one image."""

    size: Pair
    macs: int
    claimed_macs: int
    activations: int
    padding_macs: int
    stages: tuple[StageReport, ...]
    stem: int
    head: int
    claimed_stem: int
    claimed_head: int
    operators: dict[str, int]
    """MACs by fvcore's operator."""
    modules: dict[str, int]
    """MACs by module, those inside of it included."""

    @property
    def pixels(self) -> int:
        return math.prod(self.size)

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
        fit = "one area measured, no fit"
        if self.exponent is not None:
            fit = f"MACs ~ pixels^{self.exponent:.4f}, R² = {self.r2:.6f}, without the head"
            areas = [size.pixels for size in self.sizes]
            if max(areas) < 2 * min(areas):
                fit += "; the areas differ by less than x 2, so padding can outweigh growth"
        style = {"linear": "bold green", "superlinear": "bold red"}.get(self.verdict, "bold yellow")
        return Group(
            Text.assemble((self.name, "bold"), f"  {self.params:,} parameters"),
            Text(""),
            table(_size_rows(self)),
            Text(f"\n{HEADINGS[by]}"),
            table(BREAKDOWNS[by](self)),
            Text(""),
            Text.assemble((self.verdict, style), f": {self.why}"),
            Text(f"fit: {fit}"),
            Text("1 MAC is one multiply-add: what papers call a FLOP. GFLOPs here are 2 x GMACs."),
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


Row = dict[str, str]
"""Cells by column."""


def _size_rows(report: Report) -> list[Row]:
    """One row per image size: the totals, and their growth from size to size beside the area's.

    The growth of the MACs leaves the head out, as the fit does.
    """
    return [
        {
            "image": shown_size(size.size),
            "GMACs": giga(size.macs),
            "GFLOPs (2x)": giga(2 * size.macs),
            "claim": "equal" if size.macs == size.claimed_macs else giga(size.claimed_macs),
            "padding": f"{size.padding_macs / size.macs:.1%}",
            "activations": f"{size.activations / 1e6:,.1f} M",
            "area": f"x {size.pixels / before.pixels:.4g}" if before else "",
            "MACs": f"x {(size.macs - size.head) / (before.macs - before.head):.4g}"
            if before
            else "",
        }
        for before, size in zip([None, *report.sizes], report.sizes, strict=False)
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
        return [
            {
                label: name or "(all)",
                **{shown_size(size.size): giga(costs(size).get(name, 0)) for size in report.sizes},
            }
            for name in costs(report.sizes[0])
        ]

    return rows


BREAKDOWNS: dict[By, Callable[[Report], list[Row]]] = {
    "stage": _stage_rows,
    "part": _rows_of("part", lambda size: size.parts),
    "operator": _rows_of("operator", lambda size: size.operators),
    "module": _rows_of("module", lambda size: size.modules),
}


HEADINGS: dict[By, str] = {
    "stage": "MACs per token, by stage",
    "part": "GMACs by part",
    "operator": "GMACs by operator, as fvcore names them",
    "module": "GMACs by module",
}


def comparison(reports: Sequence[Report]) -> list[Row]:
    """One row per report and size, for several networks side by side."""
    return [
        {
            "name": report.name,
            "params": f"{report.params:,}",
            "image": shown_size(size.size),
            "GMACs": giga(size.macs),
            "GFLOPs (2x)": giga(2 * size.macs),
            "padding": f"{size.padding_macs / size.macs:.1%}",
            "MACs/pixel": f"{(size.macs - size.head) / size.pixels:,.0f}",
            "exponent": "-" if report.exponent is None else f"{report.exponent:.4f}",
            "verdict": report.verdict,
        }
        for report in reports
        for size in report.sizes
    ]


def records(reports: Iterable[Report], *, by: By) -> list[dict[str, Any]]:
    """Flat records for CSV: a name, a size, one item of the breakdown, and its numbers."""
    rows: list[dict[str, Any]] = []
    for report in reports:
        for size in report.sizes:
            here = {"name": report.name, "height": size.size[0], "width": size.size[1]}
            for item, macs, claimed in _items(size, by):
                rows.append({**here, by: item, "macs": macs, "claimed_macs": claimed})
    return rows


def _items(size: SizeReport, by: By) -> list[tuple[str, int, int | str]]:
    """(what, MACs, claim); an operator or a module has no claim of its own."""
    total = ("total", size.macs, size.claimed_macs)
    stem, head = ("stem", size.stem, size.claimed_stem), ("head", size.head, size.claimed_head)
    if by == "stage":
        stages = [(str(stage.index), stage.macs, stage.claimed_macs) for stage in size.stages]
        return [stem, *stages, head, total]
    if by == "part":
        return [*((k, macs, size.claimed_parts[k]) for k, macs in size.parts.items()), total]
    costs = size.operators if by == "operator" else size.modules
    return [*((name or "(all)", macs, "") for name, macs in costs.items()), total]


def table(rows: Sequence[Row]) -> Table:
    """A rich table of rows that share their columns; numbers stand right."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for column in rows[0]:
        numbers = all(
            row[column].removeprefix("x ")[:1].isdigit() or not row[column] for row in rows
        )
        drawn.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row.values())
    return drawn


def markdown(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def giga(macs: int) -> str:
    return f"{macs / 1e9:,.3f}"


def shown_size(size: Pair) -> str:
    return f"{size[0]}x{size[1]}"
