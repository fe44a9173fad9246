"""The windows of consecutive blocks on a picture, at each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hierarch.errors import PlotError
from hierarch.plots.cuts import Line, Windowed, windowed
from hierarch.plots.networks import Network, Size, picture, spec_of, stage_numbers
from hierarch.plots.scene import scene
from hierarch.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    blank,
    caption,
    caption_height,
)
from hierarch.spec.grid import Sides, checked_size, per_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FINEST = 32
"""Tokens of a side up to which they are drawn."""
BORDER = VERMILLION
JOINED = {
    (False, True): (SKY, "\\\\\\"),
    (True, False): (ORANGE, "///"),
    (True, True): (PURPLE, "xxx"),
}
"""The color and the hatch of windows that hold both ends of an axis: of rows, of columns."""
SPREAD = ((BLUE, 40), (VERMILLION, 3), (ORANGE, 4), (PURPLE, 6))
"""The windows that are drawn where tokens of a window are spread over the map: the color of the
tokens' mark, and its number of corners."""


def windows(
    network: Network,
    *,
    image: Any = None,
    size: Size = None,
    stages: Sequence[int] | None = None,
) -> Figure:
    """Draw the windows of consecutive blocks on a picture: a column for each stage, a row for each
    way in which its blocks cut the map, regular and shifted.

    The picture is `image` (a file, an image of PIL, or an array (H, W) or (H, W, 3) of bytes), or
    else a drawn one, at `size`, by default the spec's. `stages` are some, from 0. Windows are those
    of the network's own cut, with the padding that it adds. Raises `PlotError` where no block is in
    windows, `SpecError` and `DataError`.

    >>> figure = windows("swin_tiny", stages=[2])
    >>> figure.axes[1].get_title()
    'stage 2, blocks 1, 3, 5\\n2×2 windows of 7×7, shifted by 3'
    """
    spec = spec_of(network)
    at = per_axis(spec.input_size) if size is None else checked_size(size)
    wanted = stage_numbers(spec, stages)
    found = windowed(spec, at, stages=wanted)
    if not found:
        others = sorted({mixer.type for i in wanted for mixer in spec.plan()[i].mixers})
        where = f"stages {wanted}" if stages is not None else "the network"
        raise PlotError(
            f"{spec.name}: no block of {where} is in windows; its mixers: "
            f"{', '.join(others) or 'none'}"
        )
    pixels = scene(at) if image is None else picture(image, spec, size=at).pixels
    columns = [[one for one in found if one.stage == i] for i in wanted]
    columns = [column for column in columns if column]
    rows = max(map(len, columns))
    tallest = max(_extent(column, 0) / _extent(column, 1) for column in columns)
    width, text = 2.3 * max(2, len(columns)), _caption(spec.name, at, found)
    mixers = {one.mixer for one in found}
    row = 2.2 * tallest + 0.38 + 0.14 * (len(mixers) > 1)
    figure = blank(width, row * rows + caption_height(width, text))
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for panels, column in zip(grid.T, columns, strict=True):
        for axes in panels[len(column) :]:
            axes.set_visible(False)
        for axes, one in zip(panels, column, strict=False):
            _draw(axes, one, pixels, spec.strides()[one.stage])
            axes.set_title(_title(one, named=len(mixers) > 1), fontsize=SMALL, color=INK)
        _same_limits(panels[: len(column)])
    caption(figure, text)
    return figure


def _extent(column: Sequence[Windowed], axis: int) -> int:
    """Tokens from the first padding of any of these to the last, along one axis."""
    lines = [one.lines[axis] for one in column]
    leads = [line.axis.lead for line in lines]
    return max(leads) + max(line.padded - lead for line, lead in zip(lines, leads, strict=True))


def _draw(axes: Axes, one: Windowed, pixels: np.ndarray[Any, Any], stride: Sides) -> None:
    """One stage's map in tokens, from the padding before it to the padding behind it."""
    from matplotlib.patches import Rectangle

    rows, columns = one.lines
    top, left = -rows.axis.lead, -columns.axis.lead
    padding = Rectangle(
        (left, top), columns.padded, rows.padded, facecolor="#eeeeee", hatch="....", linewidth=0
    )
    padding.set(edgecolor="#aaaaaa", zorder=-2)
    axes.add_patch(padding)
    height, width = pixels.shape[0] / stride[0], pixels.shape[1] / stride[1]
    extent = (0, width, height, 0)
    axes.imshow(pixels, extent=extent, cmap="gray", interpolation="nearest", zorder=-1)
    _tokens(axes, one.grid)
    if one.is_spread:
        _spread(axes, rows, columns)
    else:
        _joined(axes, rows, columns)
        _borders(axes, rows, columns)
    axes.set_xlim(left, left + columns.padded)
    axes.set_ylim(top + rows.padded, top)
    axes.set_aspect("equal", anchor="N")
    axes.axis("off")


def _same_limits(panels: Sequence[Axes]) -> None:
    """The picture at one place in all panels of a column, and room for the lines at the edges."""
    lefts, rights = zip(*(axes.get_xlim() for axes in panels), strict=True)
    bottoms, tops = zip(*(axes.get_ylim() for axes in panels), strict=True)
    room = 0.01 * max(max(rights) - min(lefts), max(bottoms) - min(tops))
    for axes in panels:
        axes.set_xlim(min(lefts) - room, max(rights) + room)
        axes.set_ylim(max(bottoms) + room, min(tops) - room)


def _tokens(axes: Axes, grid: Sides) -> None:
    """Thin lines between tokens, where they are not too many."""
    from matplotlib.collections import LineCollection

    height, width = grid
    if max(grid) <= FINEST:
        lines = [[(0, y), (width, y)] for y in range(1, height)]
        lines += [[(x, 0), (x, height)] for x in range(1, width)]
        axes.add_collection(LineCollection(lines, colors="white", linewidths=0.35, alpha=0.6))


def _borders(axes: Axes, rows: Line, columns: Line) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    top, left = -rows.axis.lead, -columns.axis.lead
    bottom, right = top + rows.padded, left + columns.padded
    ys = [top + start for start, _, _ in rows.pieces] + [bottom]
    xs = [left + start for start, _, _ in columns.pieces] + [right]
    drawn = LineCollection(
        [[(left, y), (right, y)] for y in ys] + [[(x, top), (x, bottom)] for x in xs],
        colors=BORDER,
        linewidths=0.9,
        capstyle="projecting",
    )
    drawn.set_path_effects([withStroke(linewidth=1.7, foreground="white", alpha=0.75)])
    axes.add_collection(drawn)


def _joined(axes: Axes, rows: Line, columns: Line) -> None:
    """Hatches over the pieces of windows that hold both ends of an axis."""
    top, left = -rows.axis.lead, -columns.axis.lead
    several = [Counter(window for _, _, window in line.pieces) for line in (rows, columns)]
    for y, bottom, row in rows.pieces:
        for x, right, column in columns.pieces:
            joined = several[0][row] > 1, several[1][column] > 1
            if any(joined):
                color, hatch = JOINED[joined]
                _cover(axes, (left + x, top + y), right - x, bottom - y, color, hatch)


def _cover(
    axes: Axes, corner: tuple[int, int], width: int, height: int, color: str, hatch: str
) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    patch = Rectangle(
        corner, width, height, facecolor=to_rgba(color, 0.3), hatch=hatch, linewidth=0
    )
    patch.set_edgecolor(color)
    axes.add_patch(patch)


def _spread(axes: Axes, rows: Line, columns: Line) -> None:
    """The tokens of some windows that are spread over the map."""
    from matplotlib.patches import RegularPolygon

    counts = rows.axis.count, columns.axis.count
    shown = {(y * counts[0] // 2, x * counts[1] // 2) for y in (0, 1) for x in (0, 1)}
    for (row, column), (color, corners) in zip(sorted(shown), SPREAD, strict=False):
        for y, of_row in enumerate(rows.places[0]):
            for x, of_column in enumerate(columns.places[0]):
                if (of_row, of_column) == (row, column):
                    middle = x - columns.axis.lead + 0.5, y - rows.axis.lead + 0.5
                    mark = RegularPolygon(middle, corners, radius=0.5, facecolor=color)
                    mark.set(edgecolor="white", linewidth=0.4)
                    axes.add_patch(mark)


def _title(one: Windowed, *, named: bool) -> str:
    first, *others = one.blocks
    blocks = f"block {first}"
    if others:
        middle = "" if len(others) == 1 else f", {others[0]}" if len(others) == 2 else ", …"
        blocks = f"blocks {first}{middle}, {others[-1]}"
    counts = [line.axis.count for line in one.lines]
    window = "×".join(str(line.axis.window) for line in one.lines)
    many = f"{'×'.join(map(str, counts))} windows" if max(counts) > 1 else "one window"
    mixer = f"\n{one.mixer}" if named else ""
    return f"stage {one.stage}, {blocks}{mixer}\n{many} of {window}{_shifted(one)}"


def _shifted(one: Windowed) -> str:
    """How windows are shifted, in words."""
    wrapped = [sum(line.is_wrapped) for line in one.lines]
    leads = [line.axis.lead for line in one.lines]
    for amounts, what in ((wrapped, "shifted by {}"), (leads, "{} zeros before")):
        if any(amounts):
            text = str(amounts[0]) if amounts[0] == amounts[1] else "×".join(map(str, amounts))
            return f", {what.format(text)}"
    return ", spread" if one.is_spread else ""


def _caption(name: str, size: Sides, found: Sequence[Windowed]) -> str:
    mixers = sorted({one.mixer for one in found})
    said = [
        f"The windows of {name} ({', '.join(mixers)}) for an image of {size[0]} × {size[1]} "
        "pixels, in consecutive blocks of each stage. Tokens see each other only within a window."
    ]
    wrapped = [one for one in found if any(map(any, (line.is_wrapped for line in one.lines)))]
    if wrapped:
        apart = all(any(one.cut.shift) for one in wrapped)
        said.append(
            "Pieces that are hatched alike, on opposite sides, are one window that a cyclic shift "
            f"joins; {'a mask keeps them' if apart else 'no mask keeps them'} apart."
        )
    if any(one.is_spread for one in found):
        said.append(
            "Where the tokens of a window are spread over the map, four windows have a color each."
        )
    if any(line.padded > line.axis.size for one in found for line in one.lines):
        said.append("Dotted is padding: zeros beyond the map.")
    return " ".join(said)
