"""The report on a network of another library: counted by fvcore, with no formula to compare to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hierarch.report.cost import HEADINGS, By, Cost, CostReport, Item, breakdown, growth, totals
from hierarch.report.formats import Table
from hierarch.report.tables import Row
from hierarch.spec.grid import Sides


@dataclass(frozen=True, kw_only=True)
class PeerSize(Cost):
    """A peer at one image size. Its `head` is the cost of the linear layers in its last child.

    >>> from hierarch import measure_peer
    >>> [size] = measure_peer("torchvision:resnet18", sizes=[224]).sizes
    >>> size.claimed_macs is None, "layer1" in size.children
    (True, True)
    """

    children: dict[str, int]
    """MACs by the network's top-level children, and "(own)" for operators outside of them."""

    @property
    def claimed_macs(self) -> None:
        """None: there is no formula for a peer."""

    @property
    def padding_macs(self) -> None:
        """None: in a trace, padding cannot be distinguished."""

    def padding_share(self) -> None:
        """None: in a trace, padding cannot be distinguished."""

    def breakdown(self, by: By) -> dict[str, int]:
        """MACs by operator, by module, or else by top-level child, since peers have no common names
        of stages and parts."""
        return {"operator": self.operators, "module": self.modules}.get(by, self.children)

    def items(self, by: By) -> list[Item]:
        costs = self.breakdown(by).items()
        return [*((name or "(all)", macs, "") for name, macs in costs), ("total", self.macs, "")]

    def to_dict(self, *, by: By = "stage") -> dict[str, Any]:
        return {
            "size": list(self.size),
            "macs": self.macs,
            "claimed_macs": self.claimed_macs,
            "activations": self.activations,
            "children": self.children,
            "head": self.head,
            **self.extra(by),
        }


@dataclass(frozen=True, kw_only=True)
class PeerReport(CostReport[PeerSize]):
    """A peer's cost at several image sizes, and how it grows.

    >>> from hierarch import measure_peer
    >>> report = measure_peer("torchvision:resnet18", sizes=[224])
    >>> report.params, report.verdict
    (11689512, 'measured, no claim')
    """

    input_size: Sides
    """Its nominal image size in its library, or else the first one measured."""
    params: int
    """Number of parameters of the network built for `input_size`."""
    why: str
    """Why there is no verdict."""
    verdict: Literal["measured, no claim"] = "measured, no claim"

    def to_dict(self, *, by: By = "stage") -> dict[str, Any]:
        """Plain data, as `hierarch flops --vs ... --format json` writes it for each peer."""
        first = {"name": self.name, "input_size": list(self.input_size)}
        return first | super().to_dict(by=by)

    def size_rows(self) -> list[Row]:
        grown = growth(self.sizes)
        return [totals(size) | row for size, row in zip(self.sizes, grown, strict=True)]

    def breakdown(self, by: By) -> Table:
        label = by if by in ("operator", "module") else "child"
        heading = HEADINGS[by] if label == by else "GMACs by top-level child"
        costs = [(size.size, size.breakdown(by)) for size in self.sizes]
        return Table(breakdown(label, costs), heading)
