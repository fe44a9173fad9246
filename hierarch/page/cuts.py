"""The windows and masks of a network's blocks, as plain data that a page can draw.

All of it is read from the network's own modules, see `hierarch.plots.cuts`. What draws the data
needs no formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hierarch.plots.cuts import CPU, Windowed, windowed
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim
from hierarch.spec.grid import Sides, tokens


@dataclass(frozen=True)
class AxisCut:
    """One axis of a grid, cut into windows. A token's window and slot are those of its row and of
    its column."""

    windows: tuple[int, ...]
    """The window of each position."""
    slots: tuple[int, ...]
    """The place of each position in its window."""
    window: int
    """Slots of a window along this axis; one without a token holds zeros."""
    count: int
    """Number of windows."""


@dataclass(frozen=True)
class KindOfWindow:
    """Windows of a grid that share one mask."""

    last: tuple[bool, ...]
    """Along which axes they are the last, and hold both ends of the image."""
    count: int
    """Windows of this kind."""
    regions: tuple[int, ...]
    """The region of each slot, row by row: tokens of different regions do not see each other."""

    @property
    def masked(self) -> bool:
        return len(set(self.regions)) > 1


@dataclass(frozen=True)
class GridCut:
    """A grid, and the windows that its tokens are in."""

    axes: tuple[AxisCut, ...]
    kinds: tuple[KindOfWindow, ...]


@dataclass(frozen=True)
class BlockCut:
    """One block of a network."""

    stage: int
    block: int
    """In its stage."""
    mixer: str
    """Its type."""
    grid: Sides
    cut: GridCut | None
    """None for a mixer that does not work in windows."""


def block_cuts(spec: BackboneSpec, size: Sides) -> tuple[BlockCut, ...]:
    """Every block of a spec's network, for an image of `size` pixels.

    >>> import hierarch
    >>> blocks = block_cuts(hierarch.load("swin_tiny"), (224, 224))
    >>> [kind.count for kind in blocks[1].cut.kinds]
    [49, 7, 7, 1]
    """
    grids = [stage.grid for stage in claim(spec, size).stages]
    cuts = {(one.stage, i): grid_cut(one) for one in windowed(spec, size) for i in one.blocks}
    return tuple(
        BlockCut(plan.index, i, mixer.type, grid, cuts.get((plan.index, i)))
        for plan, grid in zip(spec.plan(), grids, strict=True)
        for i, mixer in enumerate(plan.mixers)
    )


def grid_cut(found: Windowed) -> GridCut:
    """The data of a cut, with the mask of each kind of window that the grid has."""
    axes = []
    for axis in found.cut.axes:
        windows, slots = (places.tolist() for places in axis.places(CPU))
        axes.append(AxisCut(tuple(windows), tuple(slots), axis.window, axis.count))
    free = torch.zeros(tokens(found.cut.window), tokens(found.cut.window))
    masks = found.masks()
    return GridCut(
        axes=tuple(axes),
        kinds=tuple(
            KindOfWindow(kind, count, regions(masks.get(kind, free) != 0))
            for kind, count in found.cut.runs(1)
            if count
        ),
    )


def regions(apart: Tensor) -> tuple[int, ...]:
    """(N, N), whether two slots are kept apart -> the region of each slot, counted from 0."""
    first = (~apart).int().argmax(dim=1)  # the first slot that each one sees
    assert torch.equal(first[:, None] != first[None, :], apart), "a mask that is not by regions"
    numbers = {slot: i for i, slot in enumerate(sorted(set(first.tolist())))}
    return tuple(numbers[slot] for slot in first.tolist())
