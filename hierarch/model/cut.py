"""Which window holds each token of a grid, and where in it, for mixers whose windows are
independent.

A window has a slot for each token that it can hold. A shifted grid has four kinds of windows:
inside, in the last column, in the last row, and the corner, since only the last window of an axis
holds both ends of the image. Sizes may be symbolic (torch.compile).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hierarch.model.windows import is_known, is_zero
from hierarch.spec.base import Pair, ceil_div, tokens

PADDING = -1
Kind = tuple[bool, bool]
"""Whether a window is the last of its column, and the last of its row, of a shifted grid."""
Counts = list[tuple[Kind, int]]
"""How many windows of each kind follow each other."""
Order = tuple[Tensor, Counts]
"""(windows, h*w): the token in each slot, or `PADDING`; and what kinds the windows are of."""


@dataclass(frozen=True)
class Axis(ABC):
    """An axis cut into windows."""

    size: int
    window: int

    @property
    def count(self) -> int:
        """How many windows there are."""
        return ceil_div(self.size, self.window)

    @property
    def shift(self) -> int:
        """By how much it is rolled; if it is, its last window is of a kind of its own."""
        return 0

    @abstractmethod
    def slots(self, device: torch.device) -> Tensor:
        """(size): the slot of each place, where window follows window."""

    def parts(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(count), each: how many windows of another kind there are before a window, how many of
        its kind, and which of these it is."""
        windows = torch.arange(self.count, device=device)
        if is_zero(self.shift):
            return torch.zeros_like(windows), torch.full_like(windows, self.count), windows
        others = self.count - 1
        before = torch.where(windows == others, others, 0)
        return before, torch.where(windows == others, 1, others), windows - before


@dataclass(frozen=True)
class Shifted(Axis):
    """Padded at its end, then rolled by -`by`."""

    by: int = 0

    @property
    def shift(self) -> int:
        return self.by

    def slots(self, device: torch.device) -> Tensor:
        padded = self.count * self.window
        return (torch.arange(self.size, device=device) + (padded - self.by)) % padded


@dataclass(frozen=True)
class Led(Axis):
    """With `lead` zeros before it, and padded at its end."""

    lead: int = 0

    @property
    def count(self) -> int:
        return ceil_div(self.lead + self.size, self.window)

    def slots(self, device: torch.device) -> Tensor:
        return torch.arange(self.size, device=device) + self.lead


@dataclass(frozen=True)
class Dilated(Axis):
    """Padded at its end; a window takes every `count`th place."""

    def slots(self, device: torch.device) -> Tensor:
        places = torch.arange(self.size, device=device)
        return places % self.count * self.window + places // self.count


@dataclass(frozen=True)
class Cut:
    """A grid cut into windows."""

    rows: Axis
    columns: Axis

    @property
    def window(self) -> Pair:
        return self.rows.window, self.columns.window

    @property
    def shift(self) -> Pair:
        return self.rows.shift, self.columns.shift

    @property
    def count(self) -> int:
        """How many windows there are."""
        return self.rows.count * self.columns.count

    @property
    def pads(self) -> bool:
        """Whether there are, or may be, slots that hold no token."""
        axes = (self.rows, self.columns)
        return not all(is_known(axis.count * axis.window == axis.size) for axis in axes)

    def counts(self, batch: int) -> Counts:
        """The kinds of windows that there are in a batch of grids, in their order."""
        found = [(kind, batch * tokens(shape)) for kind, shape in self._shapes()]
        return [(kind, count) for kind, count in found if count]

    def slots(self, batch: int, device: torch.device) -> Tensor:
        """(B*H*W): the slot of each token of a batch of grids, where kind follows kind."""
        rows, columns = self.rows.slots(device), self.columns.slots(device)
        height, width = self.window
        numbers = self.numbers(batch, device)[:, (rows // height)[:, None], columns // width]
        places = (rows % height * width)[:, None] + columns % width
        return (numbers * (height * width) + places).flatten()

    def order(self, batch: int) -> Order:
        """The windows of a batch of grids, kind after kind."""
        slots = self.slots(batch, torch.device("cpu"))
        held = torch.full((batch * self.count * tokens(self.window),), PADDING)
        held.index_copy_(0, slots, torch.arange(len(slots)))
        return held.view(-1, tokens(self.window)), self.counts(batch)

    def numbers(self, batch: int, device: torch.device) -> Tensor:
        """(B, nH, nW): the number of each window, where kind follows kind."""
        above, height, row = (part[:, None] for part in self.rows.parts(device))
        before, width, column = self.columns.parts(device)
        others = batch * (above * self.columns.count + height * before)  # of earlier kinds
        image = torch.arange(batch, device=device)[:, None, None]
        return others + (image * height + row) * width + column

    def _shapes(self) -> list[tuple[Kind, Pair]]:
        """How many rows and columns of windows of each kind there are."""
        rows, columns = (
            {False: axis.count} if is_zero(axis.shift) else {False: axis.count - 1, True: 1}
            for axis in (self.rows, self.columns)
        )
        return [((row, column), (rows[row], columns[column])) for row, column in kinds(self.shift)]


def kinds(shift: Pair) -> list[Kind]:
    """The kinds of windows that there can be."""
    rows, columns = ((False,) if is_zero(moved) else (False, True) for moved in shift)
    return [(row, column) for row in rows for column in columns]


def shifted_cut(grid: Pair, window: Pair, shift: Pair) -> Cut:
    """A grid that is padded at its end, and rolled by -shift."""
    rows, columns = map(Shifted, grid, window, shift)
    return Cut(rows, columns)


def within(counts: Sequence[tuple[Kind, int]], start: int, stop: int) -> Counts:
    """The kinds of the windows from `start` to `stop`, and how many of each there are."""
    found, first = [], 0
    for kind, count in counts:
        inside = min(stop, first + count) - max(start, first)
        if inside > 0:
            found.append((kind, inside))
        first += count
    return found
