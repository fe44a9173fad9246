"""What one pixel attends to, on the picture: see `hierarch.plots.attended`."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarch.plots.attended import Attended, attended
from hierarch.plots.networks import Network, Picture, Size, picture, subject
from hierarch.plots.style import BLACK, INK, SMALL, VERMILLION, bare, blank, caption, caption_height
from hierarch.spec.grid import Sides
from hierarch.weights.files import Source as Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

Box = tuple[int, int, int, int]
"""Top, left, bottom, right, in pixels; the latter two one past the last."""
RED = (0.7, 0.1, 0.0)
"""Of weights: the darker, the larger, in gray print, too."""
PANELS = 12
"""Heads side by side, at most."""
REACHED = 1e-30
"""The weight up to which a token is not attended to: a mask leaves e^-100, some 4e-44."""


def attention(
    network: Network,
    *,
    image: Any = None,
    pixel: Sides | None = None,
    stage: int | None = None,
    size: Size = None,
    weights: Weights | None = None,
    seed: int = 0,
) -> Figure:
    """Draw what one pixel attends to on a picture: a row for each block of a stage, and in it each
    head.

    The picture is `image` (a file, an image of PIL, or an array (H, W) or (H, W, 3) of bytes), or
    else a drawn one, at `size`, by default the spec's. `pixel` is a row and a column of that, by
    default in the middle. Without `stage`, the first stage by attention is shown. `weights` are for
    a spec. Raises `PlotError` where there is no attention, or no such pixel; `SpecError`,
    `DataError`, `WeightsError` and `MissingPackageError`.

    >>> figure = attention("swin_tiny", size=64, pixel=(10, 20))
    >>> [axes.get_title() for axes in figure.axes[:4]]
    ['picture', 'head 0', 'head 1', 'head 2']
    """
    looked = subject(network, weights=weights, seed=seed)
    shown = picture(image, looked.spec, size=size)
    pixel = pixel or (shown.size[0] // 2, shown.size[1] // 2)
    stages = None if stage is None else [stage]
    found = attended(looked.model, shown.images, pixel, stages=stages)
    blocks = [row for row in found if row.stage == found[0].stage]
    stride = looked.spec.strides()[blocks[0].stage]
    box = _around(blocks, stride, shown.size)
    columns = min(PANELS, max(len(row.weights) for row in blocks))
    lines = [ceil(len(row.weights) / columns) for row in blocks]
    # a panel, in inches: as high as the part of the picture, and as large as there is place for
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    width = max(0.95, min(2.1, 9 / columns, 11 / (aspect * sum(lines))))
    titles = sum(lines) if max(lines) > 1 else 1
    padding = max(float(row.padding.max()) for row in blocks)
    said = (
        f"{looked.name}: what the pixel in row {pixel[0]}, column {pixel[1]} attends to in the "
        f"blocks of stage {blocks[0].stage}, in each head. A token is {stride[0]} × {stride[1]} "
        "pixels; the one of the pixel has a frame, and the dashed line holds all that are keys to "
        "it. Each panel's scale goes from 0 to its largest weight, which stands in it; weights sum "
        f"to 1{f', up to {100 * padding:.0f} % on padding included' if padding else ''}. "
        f"{_mixers(blocks)} Shown with {looked.weights}."
    )
    across = 2.5 + width * columns
    down = 0.3 + 0.2 * titles + sum(lines) * (0.06 + width * aspect)
    down = max(down, 0.5 + 2.1 * shown.size[0] / shown.size[1])
    figure = blank(across, down + caption_height(across, said))
    grid = figure.add_gridspec(sum(lines), 1 + columns, width_ratios=(2.1 / width, *[1] * columns))
    _whole(figure.add_subplot(grid[:, 0]), shown, pixel, box)
    top = 0
    for row, count in zip(blocks, lines, strict=True):
        for head in range(len(row.weights)):
            axes = figure.add_subplot(grid[top + head // columns, 1 + head % columns])
            _head(axes, row, head, shown, stride, box)
            axes.set_title(f"head {head}" if top == 0 or count > 1 else "", fontsize=SMALL)
            if head == 0:
                axes.set_ylabel(f"block {row.block}", fontsize=SMALL, color=INK)
        top += count
    caption(figure, said)
    return figure


def _mixers(blocks: Sequence[Attended]) -> str:
    """Which mixer each block has, in a sentence."""
    by_mixer: dict[str, list[str]] = {}
    for row in blocks:
        by_mixer.setdefault(row.mixer, []).append(str(row.block))
    if len(by_mixer) == 1:
        return f"Mixer: {blocks[0].mixer}."
    said = (f"in block {', '.join(of)} {mixer}" for mixer, of in by_mixer.items())
    return f"Mixer: {'; '.join(said)}."


def _around(blocks: Sequence[Attended], stride: Sides, size: Sides) -> Box:
    """The part of the picture that holds all tokens attended to, and one around them."""
    reached = torch.stack([(row.weights > REACHED).any(0) for row in blocks]).any(0)
    ends = []
    for axis, step, side in zip((1, 0), stride, size, strict=True):
        at = torch.nonzero(reached.any(axis))[:, 0]
        ends.append((max(0, int(at[0]) - 1) * step, min(side, (int(at[-1]) + 2) * step)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def _whole(axes: Axes, shown: Picture, pixel: Sides, box: Box) -> None:
    """The whole picture, with the pixel and the part that the other panels have."""
    axes.imshow(shown.pixels, cmap="gray")
    axes.add_patch(_frame(box, color=VERMILLION))
    axes.plot(*reversed(pixel), marker="+", markersize=9, markeredgewidth=1.8, color=VERMILLION)
    axes.set_title("picture", fontsize=SMALL, color=INK)
    axes.set_xlabel(f"{shown.size[0]} × {shown.size[1]} pixels", fontsize=SMALL - 1, color=INK)
    axes.set_anchor("N")
    bare(axes)


def _head(axes: Axes, row: Attended, head: int, shown: Picture, stride: Sides, box: Box) -> None:
    """A part of the picture in pale gray, and over it the weights of one head."""
    from matplotlib.colors import LinearSegmentedColormap

    gray = shown.pixels if shown.pixels.ndim == 2 else shown.pixels.mean(2)
    axes.imshow(0.55 + 0.45 * gray / 255, cmap="gray", vmin=0, vmax=1)
    height, width = row.keys.shape
    extent = (-0.5, width * stride[1] - 0.5, height * stride[0] - 0.5, -0.5)
    weights = row.weights[head]
    colors = LinearSegmentedColormap.from_list("weights", [(*RED, 0), (*RED, 0.85)])
    axes.imshow(
        weights.numpy(),
        cmap=colors,
        vmin=0,
        vmax=float(weights.max()),
        extent=extent,
        interpolation="nearest",
    )
    keys = _outline(row.keys, stride)
    axes.add_collection(keys)
    y, x = (at * step for at, step in zip(row.token, stride, strict=True))
    axes.add_patch(_frame((y, x, y + stride[0], x + stride[1]), color=BLACK))
    axes.text(
        0.03,
        0.03,
        f"{100 * float(weights.max()):.2g} %",
        transform=axes.transAxes,
        fontsize=SMALL - 2,
        color=INK,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1},
    )
    top, left, bottom, right = box
    axes.set_xlim(left - 0.5, right - 0.5)
    axes.set_ylim(bottom - 0.5, top - 0.5)
    bare(axes)


def _outline(keys: Tensor, stride: Sides) -> LineCollection:
    """The lines between tokens that are keys and those that are none."""
    from matplotlib.collections import LineCollection

    around = F.pad(keys, (1, 1, 1, 1))
    above = torch.nonzero(around[1:, 1:-1] ^ around[:-1, 1:-1]).tolist()
    beside = torch.nonzero(around[1:-1, 1:] ^ around[1:-1, :-1]).tolist()
    lines = [((x, y), (x + 1, y)) for y, x in above] + [((x, y), (x, y + 1)) for y, x in beside]
    scaled = torch.tensor(lines) * torch.tensor(stride).flip(0) - 0.5
    return LineCollection(scaled.tolist(), colors=INK, linewidths=0.7, linestyles=(0, (3, 2)))


def _frame(box: Box, *, color: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    top, left, bottom, right = box
    corner = left - 0.5, top - 0.5
    return Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=color, linewidth=1.2)
