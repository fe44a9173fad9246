"""The report on a stream: times and memory of each contender, image after image, in two passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hierarch.report.formats import Block, Paragraph, Table
from hierarch.report.shown import Shown
from hierarch.report.tables import shown_size
from hierarch.spec.grid import Sides, tokens

PASSES = ("first pass", "second pass")
LEGEND = (
    "seconds: the sum over all images of the pass. vs first, vs fastest peer: the ratio of two "
    "sums, under 1 is faster. memory: what the process has resident after the last image of the "
    "pass, above what it had before the first image, with the network built and its libraries "
    "loaded; images do not count. Each network has a process of its own, and they take turns at "
    "each image, or at each list. Weights are random."
)


@dataclass(frozen=True, kw_only=True)
class StreamCall:
    """One call of a contender: of one image, or of a list.

    >>> StreamCall(sizes=((224, 224),), seconds=0.1, resident=10**9).sizes
    ((224, 224),)
    """

    sizes: tuple[Sides, ...]
    seconds: float
    resident: int | None
    """Bytes that the process has resident after the call; None where that cannot be measured."""


@dataclass(frozen=True, kw_only=True)
class StreamRow:
    """One contender, and its calls in each pass.

    >>> call = StreamCall(sizes=((224, 224),), seconds=0.1, resident=1_500)
    >>> row = StreamRow(name="x", is_peer=False, execution="eager", together=0, built=1_000,
    ...                 passes=((call,), (call,)))
    >>> row.seconds(0), row.memory(1)
    (0.1, 500)
    """

    name: str
    is_peer: bool
    execution: str
    """ "eager" or "packed"."""
    together: int
    """Images that a call takes, as a list; 0: one, as a batch."""
    built: int | None
    """Bytes that the process has resident before the first image."""
    passes: tuple[tuple[StreamCall, ...], ...]

    @property
    def runs(self) -> str:
        """How it runs: "eager", "packed", "lists of 8", or "packed, lists of 8"."""
        lists = [f"lists of {self.together}"] if self.together else []
        return ", ".join([self.execution] * (self.execution != "eager" or not lists) + lists)

    def seconds(self, number: int) -> float:
        """The time of a pass, 0 or 1."""
        return sum(call.seconds for call in self.passes[number])

    def memory(self, number: int) -> int | None:
        """Bytes resident at the end of a pass, above those before the first image."""
        return self.above(self.passes[number][-1])

    def above(self, call: StreamCall) -> int | None:
        """Bytes resident after a call, above those before the first image."""
        if call.resident is None or self.built is None:
            return None
        return call.resident - self.built


@dataclass(frozen=True, kw_only=True)
class StreamReport(Shown):
    """The result of `hierarch.bench.benchmark_stream`.

    >>> from hierarch.bench import benchmark_stream
    >>> small = {"name": "small", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> report = benchmark_stream([small], [32, 40], threads=1)
    >>> report.vs_first(report.rows[0], 1)
    1.0
    """

    device: str
    threads: int
    torch: str
    dtype: str
    sizes: tuple[Sides, ...]
    """Of all images, in order."""
    rows: tuple[StreamRow, ...]
    notes: tuple[str, ...] = ()
    """The reasons why numbers are missing."""

    def vs_first(self, row: StreamRow, number: int) -> float:
        """A row's time of a pass over the first row's."""
        return row.seconds(number) / self.rows[0].seconds(number)

    def vs_fastest_peer(self, row: StreamRow, number: int) -> float | None:
        """A row's time of a pass over that of the peer that is fastest in it; None without one."""
        peers = [other.seconds(number) for other in self.rows if other.is_peer]
        return row.seconds(number) / min(peers) if peers else None

    def to_data(self) -> dict[str, Any]:
        """As `hierarch bench --stream --format json` writes it."""
        return {
            "schema_version": 1,
            "device": self.device,
            "threads": self.threads,
            "torch": self.torch,
            "dtype": self.dtype,
            "sizes": [list(size) for size in self.sizes],
            "rows": [
                {
                    **_who(row),
                    "built_bytes": row.built,
                    "passes": [
                        self._figures(row, n) | {"calls": [_call(row, call) for call in calls]}
                        for n, calls in enumerate(row.passes)
                    ],
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def records(self) -> list[dict[str, Any]]:
        """Flat records for CSV, one per pass and contender."""
        return [
            {"pass": n + 1, **_who(row), "images": len(self.sizes), **self._figures(row, n)}
            for n, row in self._each()
        ]

    def blocks(self) -> list[Block]:
        """The machine and the stream, one table per pass, the legend, and the notes."""
        return [
            Paragraph(self.head()),
            *(Table(self._rows(n), heading, keys=2) for n, heading in enumerate(PASSES)),
            Paragraph(LEGEND),
            *map(Paragraph, self.notes),
        ]

    def head(self) -> str:
        """The machine, how it was used, and the stream, in a line."""
        least, most = (shown_size(pick(self.sizes, key=tokens)) for pick in (min, max))
        return (
            f"{self.device}; {self.threads} threads, torch {self.torch}, {self.dtype}; images: "
            f"{len(self.sizes)}, of {len(set(self.sizes))} sizes from {least} to {most}"
        )

    def _each(self) -> Iterator[tuple[int, StreamRow]]:
        return ((n, row) for n in range(len(PASSES)) for row in self.rows)

    def _figures(self, row: StreamRow, number: int) -> dict[str, Any]:
        return {
            "seconds": row.seconds(number),
            "vs_first": self.vs_first(row, number),
            "vs_fastest_peer": self.vs_fastest_peer(row, number),
            "memory_bytes": row.memory(number),
        }

    def _rows(self, number: int) -> list[dict[str, str]]:
        shown = []
        for row in self.rows:
            rival, memory = self.vs_fastest_peer(row, number), row.memory(number)
            shown.append(
                {
                    "name": row.name,
                    "runs": row.runs,
                    "seconds": f"{row.seconds(number):,.3f}",
                    "vs first": f"{self.vs_first(row, number):.3f}",
                    "vs fastest peer": "-" if rival is None else f"{rival:.3f}",
                    "memory (MB)": "-" if memory is None else f"{memory / 1e6:,.1f}",
                }
            )
        return shown


def _who(row: StreamRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "is_peer": row.is_peer,
        "execution": row.execution,
        "list_size": row.together,
    }


def _call(row: StreamRow, call: StreamCall) -> dict[str, Any]:
    return {
        "sizes": [list(size) for size in call.sizes],
        "seconds": call.seconds,
        "memory_bytes": row.above(call),
        "resident_bytes": call.resident,
    }
