"""Several networks side by side, be they specs or peers: rows of a table, and flat records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hierarch.report.cost import By, totals
from hierarch.report.network import Report
from hierarch.report.peer import PeerReport
from hierarch.report.tables import Row


def comparison(reports: Sequence[Report | PeerReport]) -> list[Row]:
    """One row per report and size."""
    return [
        {
            "name": report.name,
            "params": f"{report.params:,}",
            **totals(size),
            "padding": "-" if size.padding_macs is None else f"{size.padding_macs / size.macs:.1%}",
            "MACs/pixel": f"{(size.macs - size.head) / size.pixels:,.0f}",
            "exponent": "-" if report.exponent is None else f"{report.exponent:.4f}",
            "verdict": report.verdict,
        }
        for report in reports
        for size in report.sizes
    ]


def records(reports: Iterable[Report | PeerReport], *, by: By) -> list[dict[str, Any]]:
    """Flat records for CSV: a name, a size, one item of the breakdown, and its numbers."""
    rows: list[dict[str, Any]] = []
    for report in reports:
        for size in report.sizes:
            here = {"name": report.name, "height": size.size[0], "width": size.size[1]}
            for item, macs, claimed in size.items(by):
                rows.append({**here, by: item, "macs": macs, "claimed_macs": claimed})
    return rows
