"""How the blocks of a network cut their maps into windows, and what they mask.

All of it is read from the network's own modules: `WindowMixer.cut` says which window holds each
token, `MaskedWindowMixer.masks` which tokens of a window are kept apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hierarch.nn.cut import Axis, Cut, Kind, kinds
from hierarch.nn.window_mixer import MaskedWindowMixer, WindowMixer
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim
from hierarch.spec.grid import Sides, tokens

REST, CORNER, ROWS, COLUMNS = range(4)
"""Regions of a map: what a cyclic shift does not move to the other side, and what it moves along
both axes, down, and to the right."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Line:
    """One axis of a map with its padding, cut into windows."""

    axis: Axis
    """Of the map alone."""

    @cached_property
    def padded(self) -> int:
        """Slots of all windows: the map's positions and the padding's."""
        return self.axis.count * self.axis.window

    @cached_property
    def places(self) -> tuple[list[int], list[int]]:
        """The window of each padded position, and the slot in that window: those of the same axis,
        were the padding a part of the map."""
        own = {"lead": 0} if self.axis.lead else {}
        whole = replace(self.axis, size=self.padded, **own)
        windows, slots = whole.places(CPU)
        return windows.tolist(), slots.tolist()

    @cached_property
    def order(self) -> list[int]:
        """Where each padded position is once windows lie side by side."""
        windows, slots = self.places
        return [w * self.axis.window + s for w, s in zip(windows, slots, strict=True)]

    @property
    def is_shifted(self) -> bool:
        """Whether the map's first token is not in the first slot of the first window."""
        return self.order[self.axis.lead] != 0

    @property
    def is_map(self) -> list[bool]:
        """Whether each padded position is one of the map."""
        first = self.axis.lead
        return [first <= i < first + self.axis.size for i in range(self.padded)]

    @property
    def is_wrapped(self) -> list[bool]:
        """Whether a cyclic shift moved a position from the map's start to the last window: then it
        is behind the last position there."""
        return [place > self.order[-1] for place in self.order]

    @cached_property
    def pieces(self) -> list[tuple[int, int, int]]:
        """(start, end, window) of the runs of padded positions that are neighbors in a window, too:
        a window has two of them if it holds both ends of the map."""
        windows, _ = self.places
        starts = [
            i
            for i in range(self.padded)
            if i == 0 or windows[i] != windows[i - 1] or self.order[i] != self.order[i - 1] + 1
        ]
        ends = [*starts[1:], self.padded]
        return [(a, b, windows[a]) for a, b in zip(starts, ends, strict=True)]

    @property
    def is_spread(self) -> bool:
        """Whether the tokens of a window are apart on the map, rather than side by side: then there
        are more pieces than those of whole windows, one of them cut in two."""
        return len(self.pieces) > self.axis.count + 1


@dataclass(frozen=True)
class Windowed:
    """Blocks of one stage that cut its map in the same way.

    >>> from hierarch import load
    >>> shifted = windowed(load("swin_tiny"), (84, 84), stages=[0])[1]
    >>> shifted.grid, [int((mask < 0).sum()) for mask in shifted.masks().values()]
    ((21, 21), [0, 1176, 1176, 1776])
    """

    stage: int
    blocks: tuple[int, ...]
    """In their stage."""
    mixer: str
    grid: Sides
    module: WindowMixer

    @cached_property
    def cut(self) -> Cut:
        return self.module.cut(self.grid)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """Rows and columns."""
        return tuple(map(Line, self.cut.axes))

    @property
    def is_shifted(self) -> bool:
        return any(line.is_shifted for line in self.lines)

    @property
    def is_spread(self) -> bool:
        return any(line.is_spread for line in self.lines)

    def masks(self) -> dict[Kind, Tensor]:
        """(N, N) for each kind of window that the map has: what the network adds to the logits of a
        query (row) and a key (column) because of the shift, so 0, or -100 for those kept apart.
        Nothing for a mixer that masks no windows."""
        if not isinstance(self.module, MaskedWindowMixer):
            return {}
        with torch.no_grad():
            bias = self.module.bias(self.cut.window)
            masks = self.module.masks(self.cut, torch.zeros(()))
        counts = dict(self.cut.runs(1))
        size = tokens(self.cut.window)
        shift = {}
        for kind in kinds(self.cut.shift):
            added = masks[kind]
            if added is None or added is bias:
                shift[kind] = torch.zeros(size, size)
            else:
                shift[kind] = (added if bias is None else added - bias)[0, 0]
        return {kind: mask for kind, mask in shift.items() if counts[kind]}

    def regions(self, *, by_order: bool = False) -> np.ndarray[Any, Any]:
        """(H', W'): the region of each slot of the padded map, as it lies in the picture, or in the
        order of windows."""
        rows, columns = (np.array(line.is_wrapped) for line in self.lines)
        rows, columns = rows[:, None], columns[None, :]
        both = np.where(rows & columns, CORNER, np.where(rows, ROWS, COLUMNS))
        found = np.where(rows | columns, both, REST)
        return (
            found[np.ix_(*(np.argsort(line.order) for line in self.lines))] if by_order else found
        )

    def kinds(self) -> dict[Sides, Kind]:
        """The kind of each window, by its row and column among the windows: the numbers of windows
        follow kind after kind."""
        numbers = self.cut.slots(1, device=CPU) // tokens(self.cut.window)
        of_number = [kind for kind, count in self.cut.runs(1) for _ in range(count)]
        (rows, _), (columns, _) = (line.axis.places(CPU) for line in self.lines)
        places = itertools.product(rows.tolist(), columns.tolist())
        return dict(zip(places, (of_number[i] for i in numbers.tolist()), strict=True))


def windowed(
    spec: BackboneSpec, size: Sides, *, stages: Sequence[int] | None = None
) -> tuple[Windowed, ...]:
    """The blocks in windows of some stages, or of all, for an image of `size` pixels: one entry for
    all blocks of a stage that have the same mixer, in the order of their first ones.

    >>> import hierarch
    >>> regular, shifted = windowed(hierarch.load("swin_tiny"), (84, 84), stages=[0])
    >>> shifted.blocks, shifted.cut.count, len(shifted.masks())
    ((1,), 9, 4)
    """
    grids = [stage.grid for stage in claim(spec, size).stages]
    found = []
    for plan, grid in zip(spec.plan(), grids, strict=True):
        if stages is not None and plan.index not in stages:
            continue
        for mixer in dict.fromkeys(plan.mixers):
            module = mixer.build(plan.dim)
            if isinstance(module, WindowMixer):
                blocks = tuple(i for i, one in enumerate(plan.mixers) if one == mixer)
                _without_bias(module)
                found.append(Windowed(plan.index, blocks, mixer.type, grid, module))
    return tuple(found)


def _without_bias(module: WindowMixer) -> None:
    """Zeros for what a position bias is learned by, so that taking it away leaves no rounding."""
    if isinstance(module, MaskedWindowMixer):
        with torch.no_grad():
            for parameter in module.bias_parameters():
                parameter.zero_()
