"""The report on a benchmark: times and memory of each contender in each setting."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hierarch.report.formats import Block, Paragraph, Table
from hierarch.report.shown import Shown
from hierarch.report.tables import Row, shown_size, sides_by_name
from hierarch.spec.grid import Sides

LEGEND = (
    "ms/image: the median over the rounds, over the batch; spread: their interquartile range. "
    "vs first, vs fastest peer: the median of the ratios round by round, under 1 is faster; a "
    "peer counts where it runs the same way (eager, also beside packed weights; compiled) or in a "
    "runtime of its own. memory: the peak of one call above the model. GEMM: the share of what the "
    "faster of two large matrix multiplications achieves (torch.mm; a linear layer); a training "
    "step counts as 3 forward passes. Weights are random, drop path is each network's default."
)


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One contender in one setting.

    >>> from hierarch import benchmark
    >>> small = {"name": "small", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> report = benchmark([small], sizes=[32], rounds=2, memory=False, gemm_side=64)
    >>> row = report.settings[0].rows[0]
    >>> row.execution, row.vs_first, row.ms_per_image > 0
    ('eager', 1.0, True)
    """

    name: str
    is_peer: bool
    execution: str
    """ "eager", "packed", "compiled", or "runtime"."""
    batch: int
    seconds: tuple[float, ...]
    """Seconds of one call with the whole batch, by round."""
    vs_first: float
    """Time over the first contender's: the median of the ratios round by round."""
    vs_fastest_peer: float | None
    """The same over the peer with the smallest median that runs the same way, or in a runtime."""
    memory: int | None
    """Bytes at the peak of one call, above the model; None where it was not measured."""
    macs: int | None
    """Multiply-adds of a call in matrix multiplications, convolutions and attention."""
    gemm_share: float | None
    """Share of the GEMM limit: 1 is as fast as a large matrix multiplication."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def ms_per_image(self) -> float:
        return 1000 * self.median / self.batch

    @property
    def images_per_second(self) -> float:
        return self.batch / self.median

    @property
    def spread(self) -> float | None:
        """Interquartile range over the median, of the times; None for a single round."""
        if len(self.seconds) < 2:
            return None
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / self.median

    def to_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "is_peer": self.is_peer,
            "execution": self.execution,
            "ms_per_image": self.ms_per_image,
            "spread": self.spread,
            "images_per_second": self.images_per_second,
            "vs_first": self.vs_first,
            "vs_fastest_peer": self.vs_fastest_peer,
            "memory_bytes": self.memory,
            "gemm_macs": self.macs,
            "gemm_share": self.gemm_share,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], *, batch: int) -> BenchRow:
        """A row of what `BenchSetting.to_data` wrote."""
        return cls(
            name=str(data["name"]),
            is_peer=data["is_peer"],
            execution=str(data["execution"]),
            batch=batch,
            seconds=tuple(data["seconds"]),
            vs_first=data["vs_first"],
            vs_fastest_peer=data["vs_fastest_peer"],
            memory=data["memory_bytes"],
            macs=data["gemm_macs"],
            gemm_share=data["gemm_share"],
        )


@dataclass(frozen=True, kw_only=True)
class GemmLimit:
    """The faster multiplication of two square matrices, timed in the same rotation.

    >>> from hierarch import benchmark
    >>> small = {"name": "small", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> report = benchmark([small], sizes=[32], rounds=2, memory=False, gemm_side=64)
    >>> report.settings[0].gemm.gmacs_per_second > 0
    True
    """

    operator: str
    """ "torch.mm", or "linear": the library's own linear layer, oneDNN's where there is one."""
    side: int
    seconds: tuple[float, ...]

    @property
    def gmacs_per_second(self) -> float:
        return self.side**3 / statistics.median(self.seconds) / 1e9

    def to_data(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "side": self.side,
            "gmacs_per_second": self.gmacs_per_second,
            "seconds": list(self.seconds),
        }


@dataclass(frozen=True, kw_only=True)
class BenchSetting:
    """All contenders in one setting, timed in one rotation.

    >>> from hierarch import benchmark
    >>> small = {"name": "small", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> report = benchmark([small], sizes=[32], rounds=2, memory=False, gemm_side=64)
    >>> report.settings[0].size, report.settings[0].mode
    ((32, 32), 'forward')
    """

    mode: str
    size: Sides
    batch: int
    dtype: str
    gemm: GemmLimit | None
    rows: tuple[BenchRow, ...]

    def to_data(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "size": list(self.size),
            "batch": self.batch,
            "dtype": self.dtype,
            "gemm": self.gemm and self.gemm.to_data(),
            "rows": [{**row.to_data(), "seconds": list(row.seconds)} for row in self.rows],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> BenchSetting:
        """A setting of what `BenchReport.to_data` wrote."""
        gemm, batch = data["gemm"], data["batch"]
        return cls(
            mode=str(data["mode"]),
            size=tuple(data["size"]),
            batch=batch,
            dtype=str(data["dtype"]),
            gemm=GemmLimit(
                operator=str(gemm["operator"]), side=gemm["side"], seconds=tuple(gemm["seconds"])
            )
            if gemm
            else None,
            rows=tuple(BenchRow.from_data(row, batch=batch) for row in data["rows"]),
        )


@dataclass(frozen=True, kw_only=True)
class BenchReport(Shown):
    """The result of `hierarch.benchmark`.

    >>> from hierarch import benchmark
    >>> small = {"name": "small", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> report = benchmark([small], sizes=[32], rounds=2, memory=False, gemm_side=64)
    >>> report.rounds, len(report.settings)
    (2, 1)
    """

    device: str
    threads: int
    torch: str
    rounds: int
    settings: tuple[BenchSetting, ...]
    notes: tuple[str, ...] = ()
    """The reasons why numbers are missing."""

    def to_data(self) -> dict[str, Any]:
        """As `hierarch bench --format json` writes it."""
        return {
            "schema_version": 1,
            "device": self.device,
            "threads": self.threads,
            "torch": self.torch,
            "rounds": self.rounds,
            "settings": [setting.to_data() for setting in self.settings],
            "notes": list(self.notes),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> BenchReport:
        """What `to_data` wrote. What follows from the times is worked out again."""
        return cls(
            device=str(data["device"]),
            threads=data["threads"],
            torch=str(data["torch"]),
            rounds=data["rounds"],
            settings=tuple(map(BenchSetting.from_data, data["settings"])),
            notes=tuple(map(str, data["notes"])),
        )

    def records(self) -> list[dict[str, Any]]:
        """Flat records for CSV, one per contender and setting."""
        return [
            {
                "mode": setting.mode,
                **sides_by_name(setting.size),
                "batch": setting.batch,
                "dtype": setting.dtype,
                **row.to_data(),
            }
            for setting in self.settings
            for row in setting.rows
        ]

    def blocks(self) -> list[Block]:
        """The machine, one table per setting, the legend, and the notes."""
        return [
            Paragraph(self.head()),
            *(Table(_rows(setting), _heading(setting), keys=2) for setting in self.settings),
            Paragraph(LEGEND),
            *map(Paragraph, self.notes),
        ]

    def head(self) -> str:
        """The machine and how it was used, in a line."""
        return f"{self.device}; {self.threads} threads, torch {self.torch}, {self.rounds} rounds"


def _heading(setting: BenchSetting) -> str:
    what = f"{setting.mode}, {shown_size(setting.size)}, batch {setting.batch}, {setting.dtype}"
    if not setting.gemm:
        return what
    limit = setting.gemm
    speed = f"{limit.gmacs_per_second:,.1f} GMAC/s"
    return f"{what}: GEMM limit {speed} ({limit.operator}, side {limit.side})"


def _rows(setting: BenchSetting) -> Sequence[Row]:
    return [
        {
            "name": row.name,
            "runs": row.execution,
            "ms/image": f"{row.ms_per_image:,.2f}",
            "spread": _percent(row.spread),
            "images/s": f"{row.images_per_second:,.1f}",
            "vs first": f"{row.vs_first:.3f}",
            "vs fastest peer": "-" if row.vs_fastest_peer is None else f"{row.vs_fastest_peer:.3f}",
            "memory (MB)": "-" if row.memory is None else f"{row.memory / 1e6:,.1f}",
            "GEMM": _percent(row.gemm_share),
        }
        for row in setting.rows
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
