"""The shift of windows, step by step, as in figure 4 of Swin (Liu et al. 2021, arXiv:2103.14030):
the regions of a map, the cyclic shift, the windows after it, and the mask of each kind of window.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hierarch.errors import PlotError
from hierarch.nn.cut import Kind
from hierarch.nn.window_mixer import OTHER_REGION
from hierarch.plots.cuts import COLUMNS, CORNER, REST, ROWS, Windowed, windowed
from hierarch.plots.networks import Network, Size, spec_of, stage_numbers
from hierarch.plots.style import (
    BLUE,
    GRAY,
    INK,
    PURPLE,
    SMALL,
    VERMILLION,
    YELLOW,
    blank,
    caption,
    caption_height,
)
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim
from hierarch.spec.grid import MAX_SIDE, Sides, checked_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

LETTERS = {REST: "", CORNER: "A", ROWS: "B", COLUMNS: "C"}
COLORS = ("#f4f4f1", PURPLE, YELLOW, BLUE)
"""Of the regions: what a shift does not move to the other side; A, which moves down and right; B,
which moves down; C, which moves right. In gray they are as different."""
BORDER, APART = VERMILLION, "#4d4d4d"
DASHES = (0, (3, 2))
NAMES: dict[Kind, str] = {
    (False, False): "inside",
    (False, True): "last column",
    (True, False): "last row",
    (True, True): "corner",
}
FINEST, NUMBERED = 48, 8
"""Up to so many a side, tokens are drawn, and windows have numbers."""
WIDE = 2.9
"""Inches across a map."""
SIDE = 3
"""Windows along a side of the map that is drawn without `size`."""


def shift(
    network: Network, *, stage: int = 0, block: int | None = None, size: Size = None
) -> Figure:
    """Draw how the windows of a stage are shifted: the map with its regions A, B and C, the map
    after the cyclic shift with the windows laid over it, and the mask of each kind of window.

    Regions, windows and masks are read from the network's own modules. `block` is one of the stage,
    by default the first whose windows are shifted. `size` is the image's; by default it makes a map
    of 3 windows a side. Raises `PlotError` where no windows are shifted, and `SpecError`.

    >>> figure = shift("swin_tiny")
    >>> [axes.get_title().splitlines() for axes in figure.axes if axes.get_xlabel() == "key"][1:3]
    [['2: last column', '2 windows'], ['3: last row', '2 windows']]
    """
    spec = spec_of(network)
    stage_numbers(spec, [stage])
    at = _default_size(spec, stage) if size is None else checked_size(size)
    one = _shifted(spec, at, stage, block)
    text = _caption(spec.name, at, one)
    masks = one.masks()
    if len(masks) == 1:  # nothing is kept apart
        masks = {}
    wraps = any(map(any, (line.is_wrapped for line in one.lines)))
    width = 7.2 if wraps else 4.0
    rows, columns = (line.padded for line in one.lines)
    tall = (WIDE if wraps else 3.6) * rows / columns
    heights = [tall + 0.4, 2.1] if masks else [tall + 0.4]
    figure = blank(width, sum(heights) + caption_height(width, text))
    parts = figure.subfigures(1 + bool(masks), 1, squeeze=False, height_ratios=heights)[:, 0]
    if masks:
        panels = parts[1].subplots(1, max(4, len(masks)), squeeze=False)[0]
        _draw_masks(panels, one, masks)
    if wraps:
        left, middle, right = parts[0].subplots(1, 3, width_ratios=[1, 0.32, 1])
        _draw_arrow(middle, one)
        _draw_map(left, one, by_order=False)
        _draw_map(right, one, by_order=True)
        left.set_title("the map, and the shifted windows on it", fontsize=9)
        right.set_title("after the cyclic shift: whole windows", fontsize=9)
    else:
        _draw_map(parts[0].subplots(), one, by_order=False)
    caption(figure, text)
    return figure


def _default_size(spec: BackboneSpec, stage: int) -> Sides:
    """An image whose map has 3 windows a side in a stage."""
    tiles = [mixer.tile() for mixer in spec.plan()[stage].mixers]
    stride = spec.strides()[stage]
    largest = (max((tile[i] for tile in tiles), default=1) for i in (0, 1))
    height, width = (
        min(SIDE * n * side, MAX_SIDE) for n, side in zip(stride, largest, strict=True)
    )
    return height, width


def _shifted(spec: BackboneSpec, size: Sides, stage: int, block: int | None) -> Windowed:
    """The blocks of a stage whose windows are shifted; those like `block`, if it is given."""
    plan = spec.plan()[stage]
    if block is not None and not 0 <= block < plan.depth:
        raise PlotError(
            f"block {block}: stage {stage} of {spec.name} has blocks 0 to {plan.depth - 1}"
        )
    for one in windowed(spec, size, stages=[stage]):
        if one.is_shifted and not one.is_spread and block in (None, *one.blocks):
            return one
    grid = "×".join(map(str, claim(spec, size).stages[stage].grid))
    mixers = ", ".join(dict.fromkeys(mixer.type for mixer in plan.mixers)) or "none"
    hint = ". A map that one window covers is not shifted: try a larger size"
    what = "no block" if block is None else f"block {block}: not one that"
    raise PlotError(
        f"{spec.name}, stage {stage}, {what} has shifted windows on its map of {grid} tokens; "
        f"its mixers: {mixers}{hint if windowed(spec, size, stages=[stage]) else ''}"
    )


def _draw_map(axes: Axes, one: Windowed, *, by_order: bool) -> None:
    """The padded map in regions: as it lies in the picture, or in the order of windows."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap

    code = one.regions(by_order=by_order)
    height, width = code.shape
    axes.imshow(
        code,
        cmap=ListedColormap(COLORS),
        vmin=REST - 0.5,
        vmax=COLUMNS + 0.5,
        extent=(0, width, height, 0),
        interpolation="nearest",
    )

    def lines(ys: Iterable[int], xs: Iterable[int]) -> Any:
        return [[(0, y), (width, y)] for y in ys] + [[(x, 0), (x, height)] for x in xs]

    if max(height, width) <= FINEST:
        tokens = lines(range(1, height), range(1, width))
        axes.add_collection(LineCollection(tokens, colors="white", linewidths=0.5))
    _draw_padding(axes, one, by_order=by_order)
    starts = [[start for start, _, _ in line.pieces] for line in one.lines]
    ends = [[*of, line.padded] for of, line in zip(starts, one.lines, strict=True)]
    if by_order:
        starts = [[line.order[i] for i in of] for of, line in zip(starts, one.lines, strict=True)]
        ends = [[*range(0, line.padded + 1, line.axis.window)] for line in one.lines]
        dashed = LineCollection(lines(*starts), colors=INK, linewidths=0.9, linestyles=[DASHES])
        axes.add_collection(dashed)
        _number(axes, one)
    axes.add_collection(
        LineCollection(lines(*ends), colors=BORDER, linewidths=1.6, capstyle="projecting")
    )
    _letter(axes, code, starts)
    room = 0.01 * max(height, width)
    axes.set_xlim(-room, width + room)
    axes.set_ylim(height + room, -room)
    axes.axis("off")


def _letter(axes: Axes, code: np.ndarray[Any, Any], starts: Sequence[Sequence[int]]) -> None:
    """The letter of each region, in the piece of a window that is at its middle."""
    from matplotlib.patheffects import withStroke

    for region in (CORNER, ROWS, COLUMNS):
        where = np.argwhere(code == region)
        if not len(where):
            continue
        place = []
        for middle, of, size in zip(where.mean(0), starts, code.shape, strict=True):
            first = max(start for start in of if start <= middle + 0.5)
            end = min([start for start in of if start > first] or [size])
            place.append((first, end))
        (top, bottom), (left, right) = place
        side = 72 * WIDE / code.shape[1] * min(bottom - top, right - left)
        letter = axes.text(
            (left + right) / 2,
            (top + bottom) / 2,
            LETTERS[region],
            ha="center",
            va="center",
            fontsize=min(11, max(6, 0.8 * side)),
        )
        letter.set(weight="bold", path_effects=[withStroke(linewidth=2, foreground="white")])


def _draw_padding(axes: Axes, one: Windowed, *, by_order: bool) -> None:
    from matplotlib.patches import Rectangle

    width = one.lines[1].padded
    of_map = [np.array(line.is_map) for line in one.lines]
    if by_order:
        of_map = [of[np.argsort(line.order)] for of, line in zip(of_map, one.lines, strict=True)]
    bands = [((0, start), width, end - start) for start, end in _runs(~of_map[0])]
    for top, bottom in _runs(of_map[0]):
        bands += [((x, top), end - x, bottom - top) for x, end in _runs(~of_map[1])]
    for corner, wide, tall in bands:
        band = Rectangle(corner, wide, tall, facecolor="#eeeeee", linewidth=0, hatch="....")
        band.set_edgecolor("#aaaaaa")
        axes.add_patch(band)


def _runs(of: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """The first position of each run of true ones, and the one behind its last."""
    steps = np.diff(np.concatenate([[0], of.astype(int), [0]]))
    return [
        *zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True)
    ]


def _number(axes: Axes, one: Windowed) -> None:
    """The number of its kind in each window, where there are several kinds."""
    found = one.kinds()
    order = list(dict.fromkeys(kind for kind, count in one.cut.runs(1) if count))
    height, width = one.cut.window
    if len(order) > 1 and max(line.axis.count for line in one.lines) <= NUMBERED:
        for (row, column), kind in found.items():
            at = (column * width + 0.08 * width, row * height + 0.06 * height)
            axes.text(*at, str(order.index(kind) + 1), fontsize=SMALL, va="top", color=INK)


def _draw_arrow(axes: Axes, one: Windowed) -> None:
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    down, right = (sum(line.is_wrapped) for line in one.lines)
    axes.annotate(
        "",
        (0.98, 0.5),
        xytext=(0.02, 0.5),
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "mutation_scale": 14},
    )
    axes.text(0.5, 0.53, "cyclic shift", ha="center", va="bottom", fontsize=SMALL, color=INK)
    told = f"{down} up, {right} left"
    axes.text(0.5, 0.47, told, ha="center", va="top", fontsize=SMALL, color=INK)


def _draw_masks(panels: Sequence[Axes], one: Windowed, masks: Mapping[Kind, Tensor]) -> None:
    """The mask of each kind of window, with the regions of its slots along both sides."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    of_windows = one.kinds()
    code = one.regions(by_order=True)
    counts = Counter(of_windows.values())
    height, width = one.cut.window
    size = height * width
    strip = 0.06 * size
    for axes in panels[len(masks) :]:
        axes.set_visible(False)
    for number, (axes, (kind, mask)) in enumerate(zip(panels, masks.items(), strict=False), 1):
        axes.imshow(
            mask.numpy(),
            cmap=ListedColormap((APART, "white")),
            vmin=OTHER_REGION,
            vmax=0,
            interpolation="nearest",
        )
        row, column = next(at for at, of in of_windows.items() if of == kind)
        slots = code[row * height :, column * width :][:height, :width].ravel()
        for i, region in enumerate(slots):
            for corner, wide, tall in (
                ((i - 0.5, -0.5 - strip), 1, 0.8 * strip),
                ((-0.5 - strip, i - 0.5), 0.8 * strip, 1),
            ):
                axes.add_patch(Rectangle(corner, wide, tall, facecolor=COLORS[region], linewidth=0))
        axes.set_xlim(-0.5 - strip, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5 - strip)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.add_patch(
            Rectangle((-0.5, -0.5), size, size, fill=False, edgecolor=GRAY, linewidth=0.6)
        )
        many = "1 window" if counts[kind] == 1 else f"{counts[kind]} windows"
        name = NAMES[kind] if len(masks) > 1 else "all windows"
        axes.set_title(f"{number}: {name}\n{many}", fontsize=SMALL, color=INK)
        axes.set_xlabel("key", fontsize=SMALL, color=INK)
    panels[0].set_ylabel("query", fontsize=SMALL, color=INK)


def _caption(name: str, size: Sides, one: Windowed) -> str:
    blocks = "block" if len(one.blocks) == 1 else "blocks"
    grid = " × ".join(map(str, one.grid))
    said = [
        f"{name}, stage {one.stage}, {blocks} {', '.join(map(str, one.blocks))} ({one.mixer}): how "
        f"windows are shifted on a map of {grid} tokens, for an image of {size[0]} × {size[1]} "
        "pixels."
    ]
    if any(map(any, (line.is_wrapped for line in one.lines))):
        pieces = math.prod(len(line.pieces) for line in one.lines)
        said.append(
            f"The shifted windows cut the map into {pieces} pieces. The cyclic shift moves A, B "
            f"and C to the other side, so that {one.cut.count} whole windows are left."
        )
    if any(line.axis.lead for line in one.lines):
        said.append("Zeros are put before the map, and nothing goes around: no mask is needed.")
    if len(one.masks()) > 1:
        said.append(
            "Masks: white pairs of query and key see each other; to the logit of dark ones -100 is "
            "added, since only the shift made them neighbors. Tokens are in reading order, with "
            "the color of their region at both sides."
        )
    elif one.masks():
        said.append("No mask keeps apart what the shift has joined.")
    if any(line.padded > line.axis.size for line in one.lines):
        said.append("Dotted is padding, zeros that take part.")
    return " ".join(said)
