"""The picture of a grid's results: a point for every run, and what the differences show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.plots.style import BLUE, FAINT, GRAY, VERMILLION, blank, caption, quiet
from hierarch.plots.style import save as save_figure
from hierarch.report.ablation import AblationReport
from hierarch.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    "better": BLUE,
    "worse": VERMILLION,
    "no difference shown": GRAY,
    "too few seeds": GRAY,
}
"""By what a difference shows. Markers differ, too."""
LONGEST = 40
"""Characters of a name; of a longer one, the first are shown."""
MARKERS = {"better": "^", "worse": "v", "no difference shown": "o", "too few seeds": "o"}


def plot(report: AblationReport, path: str | Path | None = None) -> Figure:
    """Accuracy of every run by arm, and beside it the paired differences with their intervals.

    Written to `path` (.svg, .png or .pdf) where one is given. Raises `PlotError` for another
    suffix, and `MissingPackageError` without matplotlib.
    """
    figure = blank(9, 1.5 + 0.42 * len(report.arms))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.2, 1))
    names = [_shortened(arm.name) for arm in report.arms]
    for at, arm in enumerate(report.arms):
        _runs(left, at, list(arm.top1.values()), report.summaries.get(arm.name))
        _difference(right, at, report, arm.name)
    left.set_yticks(range(len(names)), names, parse_math=False)  # a name is no formula
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel("top-1 (%)")
    right.set_xlabel("difference (points)")
    caption(
        figure,
        "A point for each seed; bars: the 95 % interval of the mean, and of the paired difference "
        f"to {_shortened(report.reference)}.",
    )
    right.axvline(0, color="black", linewidth=0.8, zorder=0)
    for axes in (left, right):
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        quiet(axes)
    title = f"{_shortened(report.name)} on {_shortened(report.data)}"
    left.set_title(title, loc="left", fontsize="medium", parse_math=False)
    if path is not None:
        save_figure(figure, path)
    return figure


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _runs(axes: Axes, at: int, values: list[float], told: Summary | None) -> None:
    if told is None:
        return
    axes.plot(
        [100 * value for value in values],
        [at] * len(values),
        marker="o",
        linestyle="none",
        color=BLUE,
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
