"""The picture of a grid's results: a point for every run, and what the differences show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.files import writing
from hierarch.needs import require
from hierarch.report.ablation import AblationReport
from hierarch.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    "better": "#0072b2",
    "worse": "#d55e00",
    "no difference shown": "#595959",
    "too few seeds": "#595959",
}
"""By what a difference shows: two of Okabe and Ito's colors, and gray. Markers differ, too."""
MARKERS = {"better": "^", "worse": "v", "no difference shown": "o", "too few seeds": "o"}


def plot(report: AblationReport, path: str | Path | None = None) -> Figure:
    """Accuracy of every run by arm, and beside it the paired differences with their intervals.

    Written to `path` (.svg, .png or .pdf) where one is given. Raises
    `MissingPackageError` without matplotlib.
    """
    require("matplotlib", extra="plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.42 * len(report.arms)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.2, 1))
    names = [arm.name for arm in report.arms]
    for at, arm in enumerate(report.arms):
        _runs(left, at, list(arm.top1.values()), report.summaries.get(arm.name))
        _difference(right, at, report, arm.name)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel("top-1 (%)")
    right.set_xlabel("difference (points)")
    figure.supxlabel(
        "A point for each seed; bars: the 95 % interval of the mean, and of the paired difference "
        f"to {report.reference}.",
        fontsize="small",
    )
    right.axvline(0, color="black", linewidth=0.8, zorder=0)
    for axes in (left, right):
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_title(f"{report.name} on {report.data}", loc="left", fontsize="medium")
    if path is not None:
        _write(figure, Path(path))
    return figure


def _runs(axes: Axes, at: int, values: list[float], told: Summary | None) -> None:
    if told is None:
        return
    axes.plot(
        [100 * value for value in values],
        [at] * len(values),
        marker="o",
        linestyle="none",
        color="#0072b2",
        alpha=0.6,
        markeredgewidth=0,
    )
    axes.plot(100 * told.mean, at, marker="|", markersize=14, color="black")
    if told.low is not None and told.high is not None:
        axes.plot([100 * told.low, 100 * told.high], [at, at], color="black", linewidth=1)


def _difference(axes: Axes, at: int, report: AblationReport, name: str) -> None:
    if name == report.reference:
        axes.text(0, at, " reference", va="center", fontsize="small")
        return
    found = report.against.get(name)
    if found is None:
        return
    style: dict[str, Any] = {"color": COLORS[found.word]}
    axes.plot(100 * found.mean, at, marker=MARKERS[found.word], **style)
    if found.low is not None and found.high is not None:
        axes.plot([100 * found.low, 100 * found.high], [at, at], linewidth=1.5, **style)


def _write(figure: Figure, path: Path) -> None:
    from matplotlib import rc_context

    with writing(path) as temporary, rc_context({"svg.hashsalt": "hierarch"}):
        figure.savefig(
            temporary,
            format=path.suffix.removeprefix(".") or "svg",
            dpi=200,
            metadata={"Date": None} if path.suffix in (".svg", "") else None,
        )
