"""The position bias of attention: what is added to the logit of a key by where it is.

Swin's is a learned table (Liu et al. 2021, arXiv:2103.14030, section 3.2), Swin V2's is computed
from log-spaced offsets by a small network (Liu et al. 2022, arXiv:2111.09883, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hierarch.errors import PlotError
from hierarch.nn.attended import Biased
from hierarch.nn.backbone import Backbone
from hierarch.plots.networks import Network, Size, mixers_of, stage_numbers, subject
from hierarch.plots.style import INK, SMALL, bare, blank, caption, caption_height
from hierarch.spec.claim import claim
from hierarch.spec.grid import Sides, checked_size, per_axis
from hierarch.weights.files import Source as Weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12
"""Heads side by side, at most."""


@dataclass(frozen=True)
class Table:
    """The position bias of one block."""

    stage: int
    block: int
    values: Tensor
    """(heads, 2h - 1, 2w - 1): by the offset of the key from the query, which is at the center."""


def tables(
    model: Backbone, size: Sides, *, stages: Sequence[int] | None = None
) -> tuple[Table, ...]:
    """The position biases of all blocks that have one, for images of a size, which says whether a
    window shrinks. Raises `PlotError` where no block has one."""
    wanted = stage_numbers(model.spec, stages)
    plans, claimed = model.spec.plan(), claim(model.spec, size).stages
    found = []
    for (i, j), mixer in mixers_of(model, wanted).items():
        if isinstance(mixer, Biased):
            with torch.no_grad():
                values = mixer.bias_by_offset(claimed[i].grid)
            if values is not None:
                found.append(Table(i, j, values))
    if not found:
        mixers = sorted({mixer.type for i in wanted for mixer in plans[i].mixers})
        where = f"stages {wanted}" if stages is not None else "the network"
        raise PlotError(
            f"{where} of {model.spec.name}: no position bias in {', '.join(mixers) or 'no mixer'}"
        )
    return tuple(found)


def bias(
    network: Network,
    *,
    stages: Sequence[int] | None = None,
    size: Size = None,
    weights: Weights | None = None,
    seed: int = 0,
) -> Figure:
    """Draw the position bias of attention: a row for each block, and in it a panel for each head.

    Without `stages`, of all blocks that have one. `size` is that of images, by default the spec's:
    it matters where windows shrink to the map. `weights` are for a spec. Raises `PlotError` where
    there is no position bias; `SpecError`, `WeightsError` and `MissingPackageError`.

    >>> figure = bias("swin_tiny", stages=[0])
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['head 0', 'head 1', 'head 2']
    """
    looked = subject(network, weights=weights, seed=seed)
    at = per_axis(looked.spec.input_size) if size is None else checked_size(size)
    found = tables(looked.model, at, stages=stages)
    columns = min(PANELS, max(len(table.values) for table in found))
    lines = [ceil(len(table.values) / columns) for table in found]
    windows = dict.fromkeys(
        f"{(table.values.shape[1] + 1) // 2} × {(table.values.shape[2] + 1) // 2}"
        for table in found
    )
    said = (
        f"{looked.name}: the position bias of attention among {' and '.join(windows)} tokens, a "
        "panel for each head. The query is in the middle of a panel; around it is what is added to "
        f"the logit of a key, by its offset in tokens. Shown with {looked.weights}."
    )
    across, down = 1.6 + 0.8 * columns, 0.35 + 0.85 * sum(lines)
    figure = blank(across, down + caption_height(across, said))
    grid = figure.add_gridspec(sum(lines), columns)
    lowest = min(float(table.values.min()) for table in found)
    highest = max(float(table.values.max()) for table in found)
    # a table has both signs, and the eye a middle to compare with; Swin V2's bias is positive
    if lowest < 0:
        lowest, highest = -max(-lowest, highest), max(-lowest, highest)
    panels, top = [], 0
    for table, count in zip(found, lines, strict=True):
        for head, values in enumerate(table.values):
            panels.append(figure.add_subplot(grid[top + head // columns, head % columns]))
            image = panels[-1].imshow(
                values.numpy(),
                cmap="PuOr_r" if lowest < 0 else "magma_r",
                vmin=lowest,
                vmax=highest,
                interpolation="nearest",
            )
            bare(panels[-1])
            if top == 0 and head < columns:
                panels[-1].set_title(f"head {head}", fontsize=SMALL, color=INK)
            if head == 0:
                label = f"stage {table.stage}\nblock {table.block}"
                panels[-1].set_ylabel(label, fontsize=SMALL, color=INK)
        top += count
    bar = figure.colorbar(image, ax=panels, shrink=0.6, aspect=30, pad=0.01)
    bar.set_label("added to the logit", fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL)
    caption(figure, said)
    return figure
