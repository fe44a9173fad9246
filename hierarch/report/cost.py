"""The cost of a network at several image sizes, for specs and peers alike.

`Report` (a spec's network) and `PeerReport` (another library's) add to this what only they know.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from rich.console import RenderableType

from hierarch.report.formats import Block, Paragraph, Table, Title, draw, markdown
from hierarch.report.shown import Shown
from hierarch.report.tables import EXTENTS, Row, giga, shown_size, sides_by_name
from hierarch.spec.grid import Sides

By = Literal["stage", "part", "operator", "module"]
Item = tuple[str, int, int | str]
"""A label, the MACs counted, and the MACs claimed; "" where there is no claim."""
HEADINGS: dict[By, str] = {
    "stage": "MACs per token, by stage",
    "part": "GMACs by part",
    "operator": "GMACs by operator, as fvcore names them",
    "module": "GMACs by module",
}
UNIT = "1 MAC is one multiply-add: what papers call a FLOP. GFLOPs here are 2 x GMACs."


@dataclass(frozen=True, kw_only=True)
class Cost(ABC):
    """A network at one image size; all costs are MACs for one image."""

    size: Sides
    macs: int
    activations: int
    head: int
    operators: dict[str, int]
    """MACs by fvcore's operator."""
    modules: dict[str, int]
    """MACs by module, including its submodules."""

    @property
    def pixels(self) -> int:
        return math.prod(self.size)

    @abstractmethod
    def items(self, by: By) -> list[Item]:
        """One breakdown of the cost, and the total as its last item."""

    @abstractmethod
    def padding_share(self) -> float | None:
        """MACs spent on padding over all MACs; None if unknown."""

    @abstractmethod
    def to_dict(self, *, by: By = "stage") -> dict[str, Any]:
        """Plain data for JSON; by operator or by module, it has those costs as well."""

    def extra(self, by: By) -> dict[str, Any]:
        """The part of `to_dict` that depends on the breakdown."""
        costs = {"operator": {"operators": self.operators}, "module": {"modules": self.modules}}
        return costs.get(by, {})


AnyCost = TypeVar("AnyCost", bound=Cost, covariant=True)


@dataclass(frozen=True)
class CostReport(Shown, ABC, Generic[AnyCost]):
    """A network's cost at several image sizes, and how it grows; a `Printable`."""

    name: str
    params: int
    sizes: tuple[AnyCost, ...]
    exponent: float | None
    """Exponent of the power law fitted to MACs (without the head) by pixels; None for one area."""
    r2: float | None
    verdict: str
    why: str

    @abstractmethod
    def size_rows(self) -> list[Row]:
        """One row per image size: total cost, and its growth beside that of the area."""

    @abstractmethod
    def breakdown(self, by: By) -> Table:
        """One row per stage, part, operator or module, one column per image size."""

    def style(self) -> str:
        """The rich style of the verdict."""
        return "bold"

    def to_dict(self, *, by: By = "stage") -> dict[str, Any]:
        """Plain data, as `hierarch flops --format json` writes it for each network."""
        return {
            "name": self.name,
            "params": self.params,
            "sizes": [size.to_dict(by=by) for size in self.sizes],
            "fit": {"exponent": self.exponent, "r2": self.r2},
            "verdict": self.verdict,
            "why": self.why,
        }

    def to_data(self, *, by: By = "stage") -> dict[str, Any]:
        """The same as `to_dict`, under the name that all reports share."""
        return self.to_dict(by=by)

    def records(self, *, by: By = "stage") -> list[dict[str, Any]]:
        """One flat record per image size and item of the breakdown."""
        return [
            {
                "name": self.name,
                **sides_by_name(size.size),
                by: item,
                "macs": macs,
                "claimed_macs": claimed,
            }
            for size in self.sizes
            for item, macs, claimed in size.items(by)
        ]

    def blocks(self, *, by: By = "stage") -> list[Block]:
        """Title, cost by image size, breakdown, verdict and fit."""
        return [
            Title(self.name, f"{self.params:,} parameters"),
            Table(self.size_rows()),
            self.breakdown(by),
            Paragraph(self.why, lead=self.verdict, style=self.style()),
            Paragraph(fit_line(self.exponent, self.r2, self.sizes)),
            Paragraph(UNIT),
        ]

    def render(self, *, by: By = "stage") -> RenderableType:
        """Tables for a terminal."""
        return draw(self.blocks(by=by))

    def markdown(self, *, by: By = "stage") -> str:
        """Tables as Markdown."""
        return markdown(self.blocks(by=by))


def totals(cost: Cost) -> Row:
    """The columns that every network has: image size and total cost."""
    return {
        "image": shown_size(cost.size),
        "GMACs": giga(cost.macs),
        "GFLOPs (2x)": giga(2 * cost.macs),
    }


def growth(costs: Sequence[Cost]) -> list[Row]:
    """Per image size, the factors by which area and MACs grew from the size before.

    The MACs exclude the head, as they do in the fit.
    """
    return [
        {
            "activations": f"{cost.activations / 1e6:,.1f} M",
            EXTENTS[len(cost.size)]: f"x {cost.pixels / before.pixels:.4g}" if before else "",
            "MACs": f"x {(cost.macs - cost.head) / (before.macs - before.head):.4g}"
            if before
            else "",
        }
        for before, cost in zip([None, *costs], costs, strict=False)
    ]


def breakdown(label: str, costs: Sequence[tuple[Sides, dict[str, int]]]) -> list[Row]:
    """One row per key of the costs, with its GMACs at each image size."""
    return [
        {
            label: name or "(all)",
            **{shown_size(size): giga(macs.get(name, 0)) for size, macs in costs},
        }
        for name in dict.fromkeys(name for _, macs in costs for name in macs)
    ]


def fit_line(exponent: float | None, r2: float | None, costs: Sequence[Cost]) -> str:
    """The fitted power law in words, with a warning where the areas are too close for it."""
    if exponent is None:
        return "fit: one area measured, no fit"
    fit = f"fit: MACs ~ pixels^{exponent:.4f}, R² = {r2:.6f}, without the head"
    areas = [cost.pixels for cost in costs]
    if max(areas) < 2 * min(areas):
        fit += "; the areas differ by less than x 2, so padding can outweigh growth"
    return fit
