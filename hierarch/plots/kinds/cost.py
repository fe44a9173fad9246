"""What networks cost against the area of the image: the claim as a line, the count as points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from hierarch.complexity import default_sizes, measure
from hierarch.errors import PlotError, SpecError
from hierarch.plots.networks import Network, described
from hierarch.plots.style import (
    COLORS,
    FAINT,
    GRAY,
    LINES,
    MARKERS,
    SMALL,
    blank,
    caption,
    numbered,
    quiet,
)
from hierarch.report import Report
from hierarch.report.tables import EXTENTS
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import base_size, claim
from hierarch.spec.grid import MAX_SIDE, Sides, ceil_div
from hierarch.spec.swap import explain as swapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[int, int]
"""Pixels of the image, and MACs."""
CONTROL = "global_attention"
CONTROLLED = (0, (2, 1.5))
"""The line style of controls."""
LONGEST = 64
"""Sizes of a line between its ends, at most."""


@dataclass(frozen=True)
class Curve:
    """MACs by area: of a whole network, and of each of its stages."""

    total: tuple[Point, ...]
    stages: tuple[tuple[Point, ...], ...]


def cost(
    *networks: Network | Report,
    sizes: Iterable[int | Sequence[int]] | None = None,
    control: bool = True,
    reports: Sequence[Report] = (),
) -> Figure:
    """Draw the MACs for one image against its area, both logarithmic: of the whole networks, and of
    each of their stages.

    A network is a spec, a model, or a `Report` of `hierarch.measure`. Points are counted by fvcore
    at `sizes` (pixels, or one per axis; by default the four of `hierarch.measure`), lines are
    claimed at these and, between them, where nothing is padded. With `control`, beside each the
    same network with global attention, whose cost is quadratic, where it fits. `reports` are what
    `measure` found for these specs, where that is known already. Raises `PlotError` without a
    network, and what `measure` raises.

    >>> figure = cost("swin_tiny", sizes=[224])
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['the whole network', 'stage 0', 'stage 1', 'stage 2', 'stage 3']
    """
    if not networks:
        raise PlotError("no network to draw the cost of")
    wanted = None if sizes is None else [*sizes]
    found, claims, controls = [], [], []
    for network, report in zip_longest(networks, reports):
        if isinstance(network, Report):
            found.append(network)
            claims.append(claimed_in(network))
            continue
        spec = described(network)
        found.append(report or measure(spec, wanted or default_sizes(spec)))
        between = line_sizes(spec, [size.size for size in found[-1].sizes])
        claims.append(claimed(spec, between))
        other = quadratic(spec) if control else None
        controls.append(claimed(other, between) if other else None)
    return _draw(found, claims, list(dict.fromkeys(filter(None, controls))))


def counted(report: Report) -> Curve:
    """What fvcore counted at the sizes of a report."""
    return Curve(
        total=tuple((size.pixels, size.macs) for size in report.sizes),
        stages=tuple(
            tuple((size.pixels, size.stages[i].macs) for size in report.sizes)
            for i in range(len(report.sizes[0].stages))
        ),
    )


def claimed_in(report: Report) -> Curve:
    """What was claimed at the sizes of a report."""
    return Curve(
        total=tuple((size.pixels, size.claimed_macs) for size in report.sizes),
        stages=tuple(
            tuple((size.pixels, size.stages[i].claimed_macs) for size in report.sizes)
            for i in range(len(report.sizes[0].stages))
        ),
    )


def claimed(spec: BackboneSpec, sizes: Sequence[Sides]) -> Curve:
    """What a spec claims at these sizes."""
    claims = [(math.prod(size), claim(spec, size)) for size in sizes]
    return Curve(
        total=tuple((pixels, of.macs) for pixels, of in claims),
        stages=tuple(
            tuple((pixels, of.stages[i].macs) for pixels, of in claims)
            for i in range(len(spec.plan()))
        ),
    )


def line_sizes(spec: BackboneSpec, measured: Sequence[Sides]) -> list[Sides]:
    """The measured sizes, and between the least and the largest, sizes at which nothing is padded.
    By area."""
    base, areas = base_size(spec), [math.prod(size) for size in measured]
    first, last = (
        int((area / math.prod(base)) ** (1 / len(base))) for area in (min(areas), max(areas))
    )
    step = max(1, ceil_div(last - first, LONGEST))
    grown = [tuple(side * n for side in base) for n in range(max(first, 1), last + 1, step)]
    between = [
        size
        for size in grown
        if min(areas) < math.prod(size) < max(areas) and max(size) <= MAX_SIDE
    ]
    return sorted({*measured, *between}, key=lambda size: (math.prod(size), size))


def quadratic(spec: BackboneSpec) -> BackboneSpec | None:
    """The spec with global attention for every mixer; None if it does not fit, or is there."""
    if all(mixer.type == CONTROL for stage in spec.plan() for mixer in stage.mixers):
        return None
    try:
        return swapped(spec, CONTROL).spec
    except SpecError:
        return None


def _draw(reports: Sequence[Report], claims: Sequence[Curve], controls: Sequence[Curve]) -> Figure:
    names = numbered([report.name for report in reports])
    stages = max(len(curve.stages) for curve in claims)
    columns = ceil_div(stages, 2)
    figure = blank(4.6 + 2.2 * columns, 5.0)
    mosaic: list[Any] = [
        ["total", *(f"stage {i}" if i < stages else "." for i in row)]
        for row in (range(columns), range(columns, 2 * columns))
    ]
    panels = figure.subplot_mosaic(
        mosaic, sharex=True, sharey=True, width_ratios=[2, *[1] * columns]
    )
    key: dict[str, Any] = {}
    for i, (report, curve) in enumerate(zip(reports, claims, strict=True)):
        line = {"color": COLORS[i % len(COLORS)], "linewidth": 1.4}
        point = {"marker": MARKERS[i % len(MARKERS)], "markersize": 5, "color": line["color"]}
        line["linestyle"] = LINES[i % len(LINES)]
        _plot(panels, curve, line)
        _plot(panels, counted(report), point | {"linestyle": "none"})
        key[_told(report, names[i])] = line | point
    for curve in controls:
        line = {"color": GRAY, "linestyle": CONTROLLED, "linewidth": 1.2, "zorder": 1}
        _plot(panels, curve, line)
        key["the same with global attention: quadratic"] = line
    for name, axes in panels.items():
        _finish(axes, name, [size.size for size in reports[0].sizes])
    drawn = [panels["total"].plot([], [], label=label, **style)[0] for label, style in key.items()]
    panels["total"].legend(handles=drawn, loc="upper left", frameon=False, fontsize=SMALL)
    caption(figure, _caption(reports, names, bool(controls)))
    return figure


def _plot(panels: Mapping[str, Axes], curve: Curve, style: Mapping[str, Any]) -> None:
    panels["total"].plot(*zip(*curve.total, strict=True), **style)
    for i, points in enumerate(curve.stages):
        panels[f"stage {i}"].plot(*zip(*points, strict=True), **style)


def _finish(axes: Axes, name: str, sizes: Sequence[Sides]) -> None:
    """Scales, ticks at some of the sizes, and labels."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    shown = sizes[:: ceil_div(len(sizes), 5)]
    axes.set_xticks([math.prod(size) for size in shown], [*map(_label, shown)], fontsize=SMALL)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda macs, _: f"{macs / 1e9:,.10g}"))
    axes.tick_params(axis="y", labelsize=SMALL)
    axes.set_title("the whole network" if name == "total" else name, fontsize=9, loc="left")
    if name == "total":
        axes.set_xlabel("image, in pixels", fontsize=SMALL)
        axes.set_ylabel("GMACs", fontsize=SMALL)
    elif (place := axes.get_subplotspec()) and place.colspan.start == 1:
        axes.tick_params(axis="y", labelleft=True)
    axes.grid(color=FAINT, linewidth=0.5)
    quiet(axes)


def _label(size: Sides) -> str:
    """What is written under a size: 224², 224×320, or in two lines 16× and 224²."""
    if len(size) > 1 and size[-1] == size[-2]:
        size, image = size[:-2], f"{size[-1]}²"
    else:
        size, image = size[:-2], "×".join(map(str, size[-2:]))
    return "".join(f"{side}×\n" for side in size) + image


def _told(report: Report, name: str) -> str:
    """A network's verdict, and the exponent fitted to the points."""
    extent = EXTENTS[len(report.sizes[0].size)]
    fitted = f", {extent}$^{{{report.exponent:.2f}}}$" if report.exponent is not None else ""
    plain = name.replace("$", r"\$")  # a name is no formula
    return f"{plain}: {report.verdict}{fitted}"


def _caption(reports: Sequence[Report], names: Sequence[str], controlled: bool) -> str:
    verdicts: dict[str, list[str]] = {}
    for report, name in zip(reports, names, strict=True):
        verdicts.setdefault(f"{report.verdict}: {report.why}", []).append(name)
    said = [
        f"{', '.join(of)} {'is' if len(of) == 1 else 'are'} {verdict}."
        for verdict, of in verdicts.items()
    ]
    beside = " Beside them, as a control, the same with global attention." if controlled else ""
    extent = EXTENTS[len(reports[0].sizes[0].size)]
    return (
        f"Multiply-adds (MACs) for one image, by its {extent}; both scales are logarithmic, so "
        "a straight line is a power, and one that is steeper grows faster. Points are counted by "
        "fvcore in a trace of the network; lines are claimed by the papers' formulas, at the "
        f"points and, between them, where nothing is padded.{beside} {' '.join(said)}"
    )
