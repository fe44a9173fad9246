"""The report on a network's architecture: rows for the stem, each stage, the head, the total."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hierarch.report.formats import Block, Table
from hierarch.report.shown import Shown
from hierarch.report.tables import giga, shown_size
from hierarch.spec.base import plain
from hierarch.spec.grid import Sides


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """The stem, a stage, the head, or the whole network. Only a stage has the last four fields."""

    part: str
    parameters: int
    macs: int
    """For one image, counted by fvcore."""
    grid: Sides | None = None
    """Tokens (height, width) after its downsampling."""
    stride: int | Sides | None = None
    """Pixels of the image along a side of a token."""
    dim: int | None = None
    mixers: tuple[str, ...] = ()
    """One per block."""

    def to_data(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "grid": plain(self.grid),
            "stride": plain(self.stride),
            "dim": self.dim,
            "depth": len(self.mixers) or None,
            "mixers": list(self.mixers),
            "parameters": self.parameters,
            "macs": self.macs,
        }


@dataclass(frozen=True)
class Architecture(Shown):
    """What `hierarch show` prints for one image size."""

    parts: tuple[PartReport, ...]

    def to_data(self) -> list[dict[str, Any]]:
        """One mapping per part, with null for fields that a part does not have."""
        return [part.to_data() for part in self.parts]

    def records(self) -> list[dict[str, Any]]:
        """One record per part, with the grid as text and each distinct mixer once."""
        return [
            part.to_data()
            | {
                "grid": _shown(part.grid),
                "stride": _shown(part.stride),
                "mixers": _distinct(part.mixers),
            }
            for part in self.parts
        ]

    def blocks(self) -> list[Block]:
        """One table."""
        return [
            Table(
                [
                    {
                        "part": part.part,
                        "grid": _shown(part.grid),
                        "stride": _shown(part.stride),
                        "dim": str(part.dim or ""),
                        "depth": str(len(part.mixers) or ""),
                        "mixers": _distinct(part.mixers, between=";\n"),
                        "parameters": f"{part.parameters:,}",
                        "GMACs": giga(part.macs),
                    }
                    for part in self.parts
                ]
            )
        ]


def _shown(value: int | Sides | None) -> str:
    return shown_size(value) if isinstance(value, tuple) else str(value or "")


def _distinct(mixers: tuple[str, ...], *, between: str = "; ") -> str:
    return between.join(dict.fromkeys(mixers))
