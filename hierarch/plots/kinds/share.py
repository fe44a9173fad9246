"""Where the cost of a network goes: by stage, and in each by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hierarch.complexity import measure
from hierarch.errors import PlotError
from hierarch.plots.networks import Network, Size, described
from hierarch.plots.style import FAINT, INK, PARTS, SMALL, blank, caption, quiet
from hierarch.report import Report, SizeReport
from hierarch.report.tables import giga, shown_size
from hierarch.spec.grid import checked_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"mixer": "token mixer", "mlp": "MLP", "norm": "norms", "head": "head and its norm"}
LABEL = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
"""What is behind a number."""
Row = tuple[str, Mapping[str, int]]
"""A bar: its name, and MACs by part."""


def share(network: Network | Report, *, size: Size = None) -> Figure:
    """Draw where a network's MACs go: a bar for the stem, each stage and the head, split into token
    mixers, MLPs, norms and downsampling, and one for all.

    The network is a spec, a model, or a `Report` of `hierarch.measure`. `size` is the image's, by
    default the spec's, or the first of the report. Raises `PlotError` for a size that a report does
    not have, and what `measure` raises.

    >>> whole, parts = share("swin_tiny").axes
    >>> [label.get_text() for label in parts.get_yticklabels()][:2]
    ['stem', 'stage 0: 56×56×96, 2 blocks']
    """
    report, found = _measured(network, size)
    rows = rows_of(found)
    figure = blank(7.5, 2.3 + 0.36 * len(rows))
    whole, parts = figure.subplots(2, 1, height_ratios=[1, len(rows)])
    _bar(whole, 0, found.parts, found.macs, least=0.05)
    for at, (_, macs) in enumerate(rows):
        _bar(parts, at, macs, found.macs, least=0.035)
        total = sum(macs.values())
        percent = 100 * total / found.macs
        told = f"{percent:{'.1f' if percent >= 0.1 else '.1g'}} %, {giga(total)} G"
        parts.annotate(
            told,
            (percent, at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK,
            bbox=LABEL,
        )
    whole.set_yticks([0], ["the whole network"], fontsize=SMALL)
    parts.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=SMALL)
    _finish(whole, bars=1, end=100)
    largest = max(sum(macs.values()) for _, macs in rows) / found.macs
    _finish(parts, bars=len(rows), end=min(100, 100 * largest) * 1.22)
    parts.set_xlabel("% of all multiply-adds", fontsize=SMALL)
    _legend(figure, found)
    caption(figure, _caption(report, found))
    return figure


def rows_of(found: SizeReport) -> list[Row]:
    """The bars: of the stem, each stage and the head, from MACs as counted."""
    stages = [
        (f"stage {s.index}: {'×'.join(map(str, (*s.grid, s.dim)))}, {s.depth} blocks", s.parts)
        for s in found.stages
    ]
    head = [("head", {"head": found.head})] if found.head else []
    return [("stem", {"stem": found.stem}), *stages, *head]


def _measured(network: Network | Report, size: Size) -> tuple[Report, SizeReport]:
    """A report, and its one size that is drawn."""
    if not isinstance(network, Report):
        spec = described(network)
        report = measure(spec, [spec.size if size is None else size])
        return report, report.sizes[0]
    if size is None:
        return network, network.sizes[0]
    wanted = checked_size(size, axes=len(network.sizes[0].size))
    for found in network.sizes:
        if found.size == wanted:
            return network, found
    known = ", ".join(shown_size(found.size) for found in network.sizes)
    raise PlotError(f"{network.name}: not measured at {shown_size(wanted)}; measured: {known}")


def _bar(axes: Axes, at: float, macs: Mapping[str, int], whole: int, *, least: float) -> None:
    """A bar in pieces, labeled where a piece is at least so large a share."""
    left = 0.0
    for part, of_part in macs.items():
        color, hatch = PARTS[part]
        width = 100 * of_part / whole
        axes.barh(
            at,
            width,
            left=left,
            height=0.72,
            color=color,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=part,
        )
        if width >= 100 * least:
            axes.text(
                left + width / 2,
                at,
                f"{width:.0f} %",
                ha="center",
                va="center",
                fontsize=SMALL,
                bbox=LABEL,
            )
        left += width


def _finish(axes: Axes, *, bars: int, end: float) -> None:
    axes.set_ylim(bars - 0.5, -0.5)
    axes.set_xlim(0, end)
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    quiet(axes)


def _legend(figure: Figure, found: SizeReport) -> None:
    from matplotlib.patches import Patch

    keys = [
        Patch(
            facecolor=PARTS[part][0],
            hatch=PARTS[part][1],
            edgecolor="white",
            label=NAMES.get(part, part),
        )
        for part, macs in found.parts.items()
        if macs
    ]
    figure.legend(
        handles=keys,
        loc="outside upper left",
        ncols=len(keys),
        frameon=False,
        fontsize=SMALL,
        handlelength=1.6,
        columnspacing=1.2,
    )


def _caption(report: Report, found: SizeReport) -> str:
    checked = (
        "as many as the formulas claim"
        if found.macs == found.claimed_macs
        else f"where the formulas claim {giga(found.claimed_macs)} G"
    )
    padding = (
        f" {100 * found.padding_share():.1f} % are spent on padding." if found.padding_macs else ""
    )
    return (
        f"Where the cost of {report.name} goes for one image of {' × '.join(map(str, found.size))} "
        f"pixels: {giga(found.macs)} G multiply-adds (MACs), counted by fvcore, {checked}."
        f"{padding} A stage's downsampling is the one that it starts with."
    )
