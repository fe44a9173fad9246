"""What `hierarch train`, `evaluate` and `predict` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hierarch.report.formats import Block, Line, Paragraph, Table
from hierarch.report.shown import Shown
from hierarch.report.tables import shown_size, sides_by_name
from hierarch.spec.grid import Sides


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """One finished run.

    >>> report = TrainReport(name="small", run="runs/1", steps=12, epochs=1, loss=2.1, val_top1=0.3)
    >>> report.to_data()["val_top1"]
    0.3
    """

    name: str
    run: str
    steps: int
    epochs: int
    loss: float | None
    """The mean over the last steps that were logged."""
    val_loss: float | None = None
    val_top1: float | None = None
    val_top5: float | None = None
    best_top1: float | None = None
    best_step: int | None = None
    broken: int = 0
    """Images that could not be read and in whose place others stood, each time."""

    def to_data(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


@dataclass(frozen=True)
class TrainReports(Shown):
    """What `hierarch train` prints: a row for each run."""

    runs: tuple[TrainReport, ...]

    def to_data(self) -> list[dict[str, Any]]:
        """One mapping per run."""
        return [run.to_data() for run in self.runs]

    def records(self) -> list[dict[str, Any]]:
        """One record per run."""
        return self.to_data()

    def blocks(self) -> list[Block]:
        """One table."""
        rows = [
            {
                "network": run.name,
                "steps": str(run.steps),
                "loss": _number(run.loss),
                "top-1": _percent(run.val_top1),
                "top-5": _percent(run.val_top5),
                "best top-1": _percent(run.best_top1),
                "run": run.run,
            }
            for run in self.runs
        ]
        broken = [
            Paragraph(
                f"{run.broken} times another image stood for one that cannot be read", run.run
            )
            for run in self.runs
            if run.broken
        ]
        return [Table(rows), *broken]


@dataclass(frozen=True, kw_only=True)
class SizeAccuracy:
    """How many images of each class were taken for which, at one image size.

    >>> found = SizeAccuracy(size=(8, 8), loss=0.5, top5=10, confusion=((4, 1), (2, 3)))
    >>> found.images, found.right, found.recall(0), found.precision(1)
    (10, 7, 0.8, 0.75)
    """

    size: Sides
    loss: float
    top5: int
    """Images whose class is among the five likeliest."""
    confusion: tuple[tuple[int, ...], ...]
    """Row: the class; column: what it was taken for."""
    broken: int = 0

    @property
    def images(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def right(self) -> int:
        return sum(row[i] for i, row in enumerate(self.confusion))

    def share(self, count: int) -> float | None:
        return count / self.images if self.images else None

    def recall(self, label: int) -> float | None:
        """The share of a class's images that are taken for it."""
        total = sum(self.confusion[label])
        return self.confusion[label][label] / total if total else None

    def precision(self, label: int) -> float | None:
        """The share of the images taken for a class that are of it."""
        total = sum(row[label] for row in self.confusion)
        return self.confusion[label][label] / total if total else None

    def to_data(self) -> dict[str, Any]:
        return {
            "size": list(self.size),
            "images": self.images,
            "broken": self.broken,
            "loss": self.loss,
            "top1": self.share(self.right),
            "top5": self.share(self.top5),
        }


@dataclass(frozen=True)
class EvaluationReport(Shown):
    """What `hierarch evaluate` prints.

    >>> size = SizeAccuracy(size=(8, 8), loss=0.5, top5=10, confusion=((4, 1), (2, 3)))
    >>> EvaluationReport("small", "digits", ("0", "1"), (size,)).sizes[0].share(size.right)
    0.7
    """

    name: str
    data: str
    classes: tuple[str, ...]
    sizes: tuple[SizeAccuracy, ...]

    def to_data(self) -> dict[str, Any]:
        """Everything, the confusion matrices included."""
        return {
            "name": self.name,
            "data": self.data,
            "classes": list(self.classes),
            "sizes": [
                size.to_data()
                | {"per_class": self._per_class(size), "confusion": [*map(list, size.confusion)]}
                for size in self.sizes
            ],
        }

    def _per_class(self, size: SizeAccuracy) -> list[dict[str, Any]]:
        return [
            {
                "class": name,
                "images": sum(size.confusion[i]),
                "recall": size.recall(i),
                "precision": size.precision(i),
            }
            for i, name in enumerate(self.classes)
        ]

    def records(self) -> list[dict[str, Any]]:
        """A record per size and class."""
        return [
            {"name": self.name, **sides_by_name(size.size), **row}
            for size in self.sizes
            for row in self._per_class(size)
        ]

    CONFUSION = 20
    """Classes up to which the matrix is shown to people."""

    def blocks(self) -> list[Block]:
        """A table of sizes; then, at the first size, of classes, and of what was taken for what."""
        sizes = [
            {
                "size": shown_size(size.size),
                "images": str(size.images),
                "top-1": _percent(size.share(size.right)),
                "top-5": _percent(size.share(size.top5)),
                "loss": _number(size.loss),
                **({"unreadable": str(size.broken)} if any(s.broken for s in self.sizes) else {}),
            }
            for size in self.sizes
        ]
        first = self.sizes[0]
        each = [
            {
                "class": str(row["class"]),
                "images": str(row["images"]),
                "recall": _percent(row["recall"]),
                "precision": _percent(row["precision"]),
            }
            for row in self._per_class(first)
        ]
        blocks: list[Block] = [Table(sizes, f"{self.name} on {self.data}")]
        blocks.append(Table(each, f"Per class, at {sizes[0]['size']}"))
        if len(self.classes) <= self.CONFUSION:
            matrix = [
                {"class": name, **dict(zip(self.classes, map(str, row), strict=True))}
                for name, row in zip(self.classes, first.confusion, strict=True)
            ]
            blocks.append(Table(matrix, "Taken for"))
        return blocks


@dataclass(frozen=True)
class Predictions(Shown):
    """What `hierarch predict` prints: the likeliest classes of each image.

    >>> Predictions((("cat.jpg", (("cat", 0.9), ("dog", 0.1))),)).images[0][1][0]
    ('cat', 0.9)
    """

    images: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]

    def to_data(self) -> list[dict[str, Any]]:
        """One mapping per image."""
        return [
            {
                "image": image,
                "classes": [{"class": name, "probability": share} for name, share in found],
            }
            for image, found in self.images
        ]

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A record per image and class."""
        return [
            {"image": image, "rank": rank, "class": name, "probability": share}
            for image, found in self.images
            for rank, (name, share) in enumerate(found, 1)
        ]

    def blocks(self) -> list[Block]:
        """A line per image."""
        return [
            Line(f"{image}: " + ", ".join(f"{name} {_percent(share)}" for name, share in found))
            for image, found in self.images
        ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
