"""Specs side by side: what each costs, by how much that is another cost than the first one's, and
how the specs differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hierarch.report.bench import BenchReport, BenchRow
from hierarch.report.formats import Block, Paragraph, Table
from hierarch.report.network import Report, SizeReport
from hierarch.report.shown import Shown
from hierarch.report.tables import Row, giga, shown_size, sides_by_name

LEGEND = (
    "In brackets: the difference to the first. MACs are multiply-adds for an image, counted by "
    "fvcore: what papers call FLOPs. A token is one of the first stage's grid; its MACs are all "
    "but the head's."
)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One network of a comparison.

    >>> from hierarch import compare
    >>> pooling = {"mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> deeper = compare([pooling, pooling | {"stages": [{"dim": 8, "depth": 3}]}]).networks[1]
    >>> deeper.difference
    ('stage 0: depth 1 → 3',)
    """

    report: Report
    difference: tuple[str, ...]
    """How its spec differs from the first one's, in words; empty for the first, and for the same
    network."""
    timed: tuple[BenchRow, ...] = ()
    """One per image size, where it was timed."""

    def numbers(self, index: int) -> dict[str, float | None]:
        """What is compared at one image size, by name."""
        size = self.report.sizes[index]
        timed = self.timed[index] if self.timed else None
        return {
            "params": self.report.params,
            "macs": size.macs,
            "macs_per_token": macs_per_token(size),
            "activations": size.activations,
            "images_per_second": timed.images_per_second if timed else None,
            "memory_bytes": timed.memory if timed else None,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison(Shown):
    """What `hierarch.compare` found; the first network is what the others are compared with.

    >>> from hierarch import compare
    >>> pooling = {"name": "pooling", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> found = compare([pooling, pooling | {"name": "none", "mixer": "identity"}], sizes=[64])
    >>> [network.report.name for network in found.networks]
    ['pooling', 'none']
    """

    networks: tuple[Compared, ...]
    bench: BenchReport | None = None

    def to_data(self) -> dict[str, Any]:
        """As `hierarch compare --format json` writes it."""
        return {
            "schema_version": 1,
            "networks": [
                {
                    "name": network.report.name,
                    "difference": list(network.difference),
                    "verdict": network.report.verdict,
                    "why": network.report.why,
                    "sizes": [
                        {"size": list(size.size), **self._both(network, i)}
                        for i, size in enumerate(network.report.sizes)
                    ],
                }
                for network in self.networks
            ],
            "bench": self.bench and self.bench.to_data(),
        }

    def records(self) -> list[dict[str, Any]]:
        """One flat record per network and image size."""
        return [
            {
                "name": network.report.name,
                **sides_by_name(size.size),
                **self._both(network, i),
                "verdict": network.report.verdict,
                "difference": " | ".join(network.difference),
            }
            for network in self.networks
            for i, size in enumerate(network.report.sizes)
        ]

    def blocks(self) -> list[Block]:
        """One table, then each spec's difference in words, and what the columns mean."""
        words = [
            Paragraph(". ".join(network.difference) or "the same", lead=network.report.name)
            for network in self.networks[1:]
        ]
        timed = f" Timed on {self.bench.head()}, one image a call." if self.bench else ""
        return [Table(self.rows(), keys=2), *words, Paragraph(LEGEND + timed)]

    def rows(self) -> list[Row]:
        """One row per network and image size."""
        return [
            self._row(network, i)
            for network in self.networks
            for i in range(len(network.report.sizes))
        ]

    def _both(self, network: Compared, index: int) -> dict[str, float | None]:
        """Each number, and its share of the first network's, less 1."""
        numbers, first = network.numbers(index), self.networks[0].numbers(index)
        return {
            key: value
            for name, number in numbers.items()
            for key, value in ((name, number), (f"{name}_off", off(number, first[name])))
        }

    def _row(self, network: Compared, index: int) -> Row:
        numbers, first = network.numbers(index), self.networks[0].numbers(index)

        def cell(name: str, text: str) -> str:
            change = off(numbers[name], first[name])
            return (
                text if network is self.networks[0] or change is None else f"{text} ({change:+.1%})"
            )

        size = network.report.sizes[index]
        row = {
            "name": network.report.name,
            "image": shown_size(size.size),
            "params": cell("params", f"{network.report.params:,}"),
            "GMACs": cell("macs", giga(size.macs)),
            "MACs/token": cell("macs_per_token", f"{macs_per_token(size):,.0f}"),
            "activations": cell("activations", f"{size.activations / 1e6:,.1f} M"),
            "verdict": network.report.verdict,
        }
        if network.timed:
            timed = network.timed[index]
            memory = "-" if timed.memory is None else f"{timed.memory / 1e6:,.1f}"
            row["images/s"] = cell("images_per_second", f"{timed.images_per_second:,.1f}")
            row["memory (MB)"] = cell("memory_bytes", memory)
        return row


def macs_per_token(size: SizeReport) -> float:
    """MACs without the head's, over the tokens of the first stage's grid."""
    return (size.macs - size.head) / math.prod(size.stages[0].grid)


def off(number: float | None, first: float | None) -> float | None:
    """A number over the first network's, less 1; None where either is not known, or that is 0."""
    return number / first - 1 if number is not None and first else None
