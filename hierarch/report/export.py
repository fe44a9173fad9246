"""The report on an exported file: how far it is from torch, and how long both take."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, Literal

from hierarch.report.formats import Block, Line, Paragraph, Table, Title
from hierarch.report.shown import Shown
from hierarch.report.tables import Row, shown_size, sides_by_name
from hierarch.spec.grid import Sides

Measure = Literal["relative difference", "other classes"]
"""What is held against the tolerance."""
LEGEND: dict[Measure, str] = {
    "relative difference": "the largest difference of two numbers, over the largest number of "
    "torch's; of several outputs, the worst",
    "other classes": "the share of the images that get another class than from torch",
}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The outputs of a file for some images, beside torch's in float32.

    >>> found = Agreement(images=10, difference=2e-6, relative=1e-6, same_class=9)

    >>> found.error("relative difference"), round(found.error("other classes"), 3)
    (1e-06, 0.1)
    """

    images: int
    difference: float
    """The largest difference of two numbers."""
    relative: float
    """The same over the largest of torch's numbers; of several outputs, the worst."""
    same_class: int | None
    """Images with the same likeliest class; None without a classifier."""

    def error(self, measure: Measure) -> float:
        """What is held against the tolerance."""
        if measure == "relative difference" or self.same_class is None:
            return self.relative
        return 1 - self.same_class / self.images

    def to_data(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "difference": _finite(self.difference),
            "relative_difference": _finite(self.relative),
            "same_class": self.same_class,
        }

    def cells(self) -> Row:
        same = "-" if self.same_class is None else f"{self.same_class}/{self.images}"
        return {
            "difference": f"{self.difference:.1e}",
            "relative": f"{self.relative:.1e}",
            "same class": same,
        }


@dataclass(frozen=True, kw_only=True)
class SizeCheck:
    """A file and torch at one size.

    >>> found = Agreement(images=10, difference=2e-6, relative=1e-6, same_class=9)

    >>> SizeCheck(size=(224, 224), batch=1, agreement=found, torch_seconds=(2,), seconds=(1,)).ratio
    0.5
    """

    size: Sides
    batch: int
    agreement: Agreement
    torch_seconds: tuple[float, ...]
    """Of one call, by round."""
    seconds: tuple[float, ...]
    """The same of the file's runtime."""

    @property
    def ratio(self) -> float:
        """The runtime's time over torch's: the median of the ratios round by round."""
        pairs = zip(self.seconds, self.torch_seconds, strict=True)
        return statistics.median(ours / torchs for ours, torchs in pairs)

    def to_data(self) -> dict[str, Any]:
        return {
            "size": list(self.size),
            "batch": self.batch,
            **self.agreement.to_data(),
            "torch_ms": 1000 * statistics.median(self.torch_seconds),
            "runtime_ms": 1000 * statistics.median(self.seconds),
            "ratio": self.ratio,
        }


@dataclass(frozen=True, kw_only=True)
class ImageCheck:
    """A file and torch on given images.

    >>> found = Agreement(images=10, difference=2e-6, relative=1e-6, same_class=9)

    >>> ImageCheck(agreement=found, right=(8, 7)).rows("onnxruntime", "int8")[1]["accuracy"]
    '70.00%'
    """

    agreement: Agreement
    right: tuple[int, int] | None
    """Images that torch and the file give their labels; None without labels."""

    def to_data(self) -> dict[str, Any]:
        right = self.right or (None, None)
        return {**self.agreement.to_data(), "right_torch": right[0], "right_runtime": right[1]}

    def rows(self, runtime: str, dtype: str) -> list[Row]:
        """Torch, before, and the file, after."""
        before: Row = {"network": "torch, float32", "accuracy": "-"}
        after: Row = {"network": f"{runtime}, {dtype}", "accuracy": "-"}
        if self.right:
            accuracies = (f"{right / self.agreement.images:.2%}" for right in self.right)
            before["accuracy"], after["accuracy"] = accuracies
        cells = self.agreement.cells()
        return [before | dict.fromkeys(cells, ""), after | cells]


@dataclass(frozen=True, kw_only=True)
class ExportReport(Shown):
    """The result of `hierarch.export`.

    >>> from hierarch import build, export
    >>> model = build({"mixer": "pooling", "stages": [{"dim": 8, "depth": 1}], "head": {}})
    >>> report = export(model, "small.pt2", to="torch-export", size=32, rounds=1)
    >>> report.error <= report.tolerance, report.dtype
    (True, 'float32')
    """

    name: str
    target: str
    runtime: str
    """The package that ran the file, with its version."""
    dtype: str
    dynamic: tuple[str, ...]
    path: str
    bytes: int
    weight_bytes: int
    """Of the parameters, in float32."""
    measure: Measure
    tolerance: float
    sizes: tuple[SizeCheck, ...]
    images: ImageCheck | None = None

    @property
    def error(self) -> float:
        """What is held against the tolerance: the worst of all sizes and of the images. For int8,
        which is made for images, of the images alone. Not a number where an output is none."""
        sizes = [] if self.dtype == "int8" else [check.agreement for check in self.sizes]
        agreements = [*sizes, *([self.images.agreement] if self.images else [])]
        errors = [agreement.error(self.measure) for agreement in agreements]
        return max(errors, key=lambda error: (math.isnan(error), error))

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance

    @property
    def verdict(self) -> str:
        """What was found, what is tolerated, and whether that holds."""
        holds = "holds" if self.holds else "does not hold"
        found = f"{self.measure} {self.error:.1e}, at most {self.tolerance:g}"
        return f"{self.runtime} against torch, {self.dtype}: {found}: {holds}"

    def to_data(self) -> dict[str, Any]:
        """As `hierarch export --format json` writes it."""
        return {
            "name": self.name,
            "target": self.target,
            "runtime": self.runtime,
            "dtype": self.dtype,
            "dynamic": list(self.dynamic),
            "path": self.path if self.holds else None,
            "bytes": self.bytes,
            "weight_bytes": self.weight_bytes,
            "measure": self.measure,
            "tolerance": self.tolerance,
            "error": _finite(self.error),
            "holds": self.holds,
            "sizes": [check.to_data() for check in self.sizes],
            "images": self.images and self.images.to_data(),
        }

    def records(self) -> list[dict[str, Any]]:
        """Flat records for CSV, one per size."""
        about = {"name": self.name, "target": self.target, "dtype": self.dtype}
        return [
            about | {**sides_by_name(check.size), **data}
            for check in self.sizes
            for data in [{k: v for k, v in check.to_data().items() if k != "size"}]
        ]

    def blocks(self) -> list[Block]:
        """A table of sizes, one of the images, what was tolerated, and where the file is."""
        images = self.images.rows(self.runtime, self.dtype) if self.images else []
        count = self.images.agreement.images if self.images else 0
        return [
            Title(self.name, f"{self.target}, {self.dtype}{self._sizes()}"),
            Table([self._row(check) for check in self.sizes], keys=2),
            Table(images, f"on {count} images"),
            Paragraph(self.verdict),
            Paragraph(f"{self.measure}: {LEGEND[self.measure]}"),
            Line(self._written() if self.holds else "nothing is written"),
        ]

    def _sizes(self) -> str:
        return f", any {', '.join(self.dynamic)}" if self.dynamic else ""

    def _row(self, check: SizeCheck) -> Row:
        data = check.to_data()
        return {
            "size": shown_size(check.size),
            "batch": str(check.batch),
            **check.agreement.cells(),
            "torch (ms)": f"{data['torch_ms']:,.2f}",
            f"{self.runtime} (ms)": f"{data['runtime_ms']:,.2f}",
            "ratio": f"{check.ratio:.2f}",
        }

    def _written(self) -> str:
        sizes = f"{self.bytes / 1e6:,.1f} MB; weights in float32: {self.weight_bytes / 1e6:,.1f} MB"
        return f"written: {self.path} ({sizes})"


def _finite(number: float) -> float | None:
    """The number, or None for what JSON has no word for."""
    return number if math.isfinite(number) else None
