"""The report on a swap of a part: the origin of each field of the new one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hierarch.report.formats import Block, Line
from hierarch.report.shown import Shown
from hierarch.spec.fields import yaml
from hierarch.spec.match import Match
from hierarch.spec.swap import Swap


@dataclass(frozen=True)
class SwapReport(Shown):
    """The report of `hierarch swap`."""

    swap: Swap
    layout_kept: bool
    """False if the source's layout and comments could not be kept."""

    def to_data(self) -> dict[str, Any]:
        """The network, and the fields with their values and origins."""
        return {
            "name": self.swap.spec.name,
            "part": self.swap.part,
            "fields": [
                {"field": change.field, "origin": change.origin, "values": list(change.values)}
                for change in self.swap.changes
            ],
            "joined": self.swap.joined,
            "layout_kept": self.layout_kept,
            **({"budget": _budget(self.swap.match)} if self.swap.match else {}),
        }

    def records(self) -> list[dict[str, Any]]:
        """One record per field of the part, and per number that was moved for a budget."""
        moved = self.swap.match.moves if self.swap.match else ()
        return [
            *self._fields(),
            *(
                {
                    "field": f"stages.{move.stage}.{move.field}",
                    "origin": "moved",
                    "values": f"{move.new:g}",
                }
                for move in moved
            ),
        ]

    def _fields(self) -> list[dict[str, Any]]:
        return [
            {
                "field": change.field,
                "origin": change.origin,
                "values": " / ".join(map(yaml, change.values)),
            }
            for change in self.swap.changes
        ]

    def blocks(self) -> list[Block]:
        """One line per origin of fields."""
        lost = [] if self.layout_kept else ["the source's layout and comments could not be kept"]
        return [Line(line) for line in (*lost, *self.swap.notes)]


def _budget(match: Match) -> dict[str, Any]:
    return {
        "of": match.budget,
        "size": None if match.size is None else list(match.size),
        "target": match.target,
        "reached": match.cost,
        "off": match.off,
        "moved": [asdict(move) for move in match.moves],
        "visited": match.visited,
        "why": match.why,
    }
