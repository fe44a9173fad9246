"""Several networks in one report: specs, then peers, then a table with one row per size of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hierarch.report.cost import By, Cost, CostReport
from hierarch.report.formats import Block, Table
from hierarch.report.network import Report
from hierarch.report.peer import PeerReport
from hierarch.report.shown import Shown
from hierarch.report.tables import Row, giga, shown_size


@dataclass(frozen=True)
class FlopsReport(Shown):
    """What `hierarch flops` prints: the report on each network, and all of them side by side."""

    reports: tuple[Report, ...]
    peers: tuple[PeerReport, ...] = ()
    by: By = "stage"

    @property
    def networks(self) -> tuple[CostReport[Cost], ...]:
        return (*self.reports, *self.peers)

    def to_data(self) -> dict[str, Any]:
        """A list of reports, and one of peers if there are any."""
        data = {
            "schema_version": 1,
            "reports": [report.to_dict(by=self.by) for report in self.reports],
            "peers": [peer.to_dict(by=self.by) for peer in self.peers],
        }
        return data if self.peers else {k: v for k, v in data.items() if k != "peers"}

    def records(self) -> list[dict[str, Any]]:
        """The records of all networks."""
        return [record for network in self.networks for record in network.records(by=self.by)]

    def blocks(self) -> list[Block]:
        """The blocks of each network; where there are several, a table that compares them."""
        blocks = [block for network in self.networks for block in network.blocks(by=self.by)]
        return [*blocks, Table(self.rows(), keys=2)] if len(self.networks) > 1 else blocks

    def rows(self) -> list[Row]:
        """One row per network and image size."""
        return [_row(network, size) for network in self.networks for size in network.sizes]


def _row(network: CostReport[Cost], size: Cost) -> Row:
    padding = size.padding_share()
    return {
        "name": network.name,
        "image": shown_size(size.size),
        "params": f"{network.params:,}",
        "GMACs": giga(size.macs),
        "padding": "-" if padding is None else f"{padding:.1%}",
        "MACs/pixel": f"{(size.macs - size.head) / size.pixels:,.0f}",
        "exponent": "-" if network.exponent is None else f"{network.exponent:.4f}",
        "verdict": network.verdict,
    }
