"""What a network costs at one image size, whatever the network is, and how that is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hierarch.report.tables import Row, giga, shown_size
from hierarch.spec.base import Pair

By = Literal["stage", "part", "operator", "module"]
Item = tuple[str, int, int | str]
"""What it is, its MACs, and its claim; "" for what has no claim of its own."""
HEADINGS: dict[By, str] = {
    "stage": "MACs per token, by stage",
    "part": "GMACs by part",
    "operator": "GMACs by operator, as fvcore names them",
    "module": "GMACs by module",
}
UNIT = "1 MAC is one multiply-add: what papers call a FLOP. GFLOPs here are 2 x GMACs."


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A network at one image size; all costs are MACs for one image."""

    size: Pair
    macs: int
    activations: int
    head: int
    operators: dict[str, int]
    """MACs by fvcore's operator."""
    modules: dict[str, int]
    """MACs by module, those inside of it included."""

    @property
    def pixels(self) -> int:
        return math.prod(self.size)


def totals(cost: Cost) -> Row:
    """The columns that every network has."""
    return {
        "image": shown_size(cost.size),
        "GMACs": giga(cost.macs),
        "GFLOPs (2x)": giga(2 * cost.macs),
    }


def growth(costs: Sequence[Cost]) -> list[Row]:
    """Per image size, the growth from the size before: of the area, and of the MACs.

    The growth of the MACs leaves the head out, as the fit does.
    """
    return [
        {
            "activations": f"{cost.activations / 1e6:,.1f} M",
            "area": f"x {cost.pixels / before.pixels:.4g}" if before else "",
            "MACs": f"x {(cost.macs - cost.head) / (before.macs - before.head):.4g}"
            if before
            else "",
        }
        for before, cost in zip([None, *costs], costs, strict=False)
    ]


def breakdown(label: str, costs: Sequence[tuple[Pair, dict[str, int]]]) -> list[Row]:
    """One row per item: its GMACs at each size."""
    return [
        {
            label: name or "(all)",
            **{shown_size(size): giga(macs.get(name, 0)) for size, macs in costs},
        }
        for name in dict.fromkeys(name for _, macs in costs for name in macs)
    ]


def fit_line(exponent: float | None, r2: float | None, costs: Sequence[Cost]) -> str:
    """What the fit says, and when not to believe it."""
    if exponent is None:
        return "fit: one area measured, no fit"
    fit = f"fit: MACs ~ pixels^{exponent:.4f}, R² = {r2:.6f}, without the head"
    areas = [cost.pixels for cost in costs]
    if max(areas) < 2 * min(areas):
        fit += "; the areas differ by less than x 2, so padding can outweigh growth"
    return fit
