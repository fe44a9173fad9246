"""The report on a network of another library: counted, with no claim to hold the count against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from hierarch.report.cost import HEADINGS, UNIT, By, Cost, Item, breakdown, fit_line, growth, totals
from hierarch.report.tables import Row, markdown, table
from hierarch.spec.base import Pair


@dataclass(frozen=True, kw_only=True)
class PeerSize(Cost):
    """A peer at one image size. Its `head` is what the linear layers of its last child cost."""

    children: dict[str, int]
    """MACs by the network's top-level children, and "(own)" for what runs outside of them."""

    @property
    def claimed_macs(self) -> None:
        """A peer claims nothing."""

    @property
    def padding_macs(self) -> None:
        """Nobody can tell a peer's padding from the rest."""

    def breakdown(self, by: By) -> dict[str, int]:
        """MACs by item. A peer has neither our stages nor our parts: its children are both."""
        return {"operator": self.operators, "module": self.modules}.get(by, self.children)

    def items(self, by: By) -> list[Item]:
        """One breakdown and the total."""
        costs = self.breakdown(by).items()
        return [*((name or "(all)", macs, "") for name, macs in costs), ("total", self.macs, "")]


@dataclass(frozen=True, kw_only=True)
class PeerReport:
    """A peer's cost at several image sizes, and how it grows."""

    name: str
    input_size: Pair
    """Its own size, or the first one measured where its library names none."""
    params: int
    """Of the network built for its own size."""
    sizes: tuple[PeerSize, ...]
    exponent: float | None
    """Of the MACs without the head over the pixels; None where only one area was measured."""
    r2: float | None
    why: str
    """Why there is no verdict."""
    verdict: Literal["measured, no claim"] = "measured, no claim"

    def to_dict(self, *, by: By = "stage") -> dict[str, Any]:
        """As `hierarch flops --vs ... --format json` writes it."""
        return {
            "name": self.name,
            "input_size": list(self.input_size),
            "params": self.params,
            "sizes": [_size_dict(size, by) for size in self.sizes],
            "fit": {"exponent": self.exponent, "r2": self.r2},
            "verdict": self.verdict,
            "why": self.why,
        }

    def render(self, *, by: By = "stage") -> RenderableType:
        """Tables for a terminal."""
        heading, rows = _breakdown(self, by)
        return Group(
            Text.assemble((self.name, "bold"), f"  {self.params:,} parameters"),
            Text(""),
            table(_size_rows(self)),
            Text(f"\n{heading}"),
            table(rows),
            Text(""),
            Text.assemble((self.verdict, "bold"), f": {self.why}"),
            Text(fit_line(self.exponent, self.r2, self.sizes)),
            Text(UNIT),
        )

    def markdown(self, *, by: By = "stage") -> str:
        """The same as Markdown."""
        heading, rows = _breakdown(self, by)
        head = f"**{self.name}**: {self.params:,} parameters; {self.verdict}: {self.why}"
        return "\n\n".join([head, markdown(_size_rows(self)), f"{heading}:", markdown(rows)])

    def __rich__(self) -> RenderableType:
        return self.render()


def _size_dict(size: PeerSize, by: By) -> dict[str, Any]:
    extra = {"operator": {"operators": size.operators}, "module": {"modules": size.modules}}
    return {
        "size": list(size.size),
        "macs": size.macs,
        "claimed_macs": size.claimed_macs,
        "activations": size.activations,
        "children": size.children,
        "head": size.head,
        **extra.get(by, {}),
    }


def _size_rows(report: PeerReport) -> list[Row]:
    grown = growth(report.sizes)
    return [totals(size) | row for size, row in zip(report.sizes, grown, strict=True)]


def _breakdown(report: PeerReport, by: By) -> tuple[str, list[Row]]:
    label = by if by in ("operator", "module") else "child"
    heading = HEADINGS[by] if label == by else "GMACs by top-level child"
    return heading, breakdown(label, [(size.size, size.breakdown(by)) for size in report.sizes])
