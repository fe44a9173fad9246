"""Which tokens of a grid each window holds, for mixers whose windows are independent.

A shifted grid has four kinds of windows: inside, in the last column, in the last row, and the
corner, since only the last window of an axis holds both ends of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from hierarch.model.windows import is_zero
from hierarch.spec.base import Pair, ceil_div, tokens

PADDING = -1
Kind = tuple[bool, bool]
"""Whether a window is the last of its column, and the last of its row, of a shifted grid."""
Axis = tuple[tuple[int, ...], ...]
"""The places along an axis that each window holds."""
Order = tuple[Tensor, list[tuple[Kind, int]]]
"""(windows, h*w): the tokens of every window; and how many there are of each kind that is there."""


def shifted(size: int, window: int, shift: int) -> Axis:
    """The places that slots hold on an axis that is rolled by -shift."""
    count = ceil_div(size, window)
    places = ((slot + shift) % (count * window) for slot in range(count * window))
    return _windows([place if place < size else PADDING for place in places], window)


def led(size: int, window: int, lead: int) -> Axis:
    """The same on an axis with `lead` zeros before it."""
    count = ceil_div(lead + size, window)
    places = range(-lead, count * window - lead)
    return _windows([place if 0 <= place < size else PADDING for place in places], window)


def dilated(size: int, window: int) -> Axis:
    """The same where a window takes every (size / window)th place."""
    count = ceil_div(size, window)
    padded = [place if place < size else PADDING for place in range(count * window)]
    return tuple(tuple(padded[first::count]) for first in range(count))


def _windows(places: Sequence[int], window: int) -> Axis:
    return tuple(tuple(places[i : i + window]) for i in range(0, len(places), window))


@dataclass(frozen=True)
class Cut:
    """A grid cut into windows."""

    rows: Axis
    """The rows that each row of windows holds; `PADDING` for none."""
    columns: Axis
    shift: Pair = (0, 0)
    """By how much it is rolled; on an axis that is, the last window is of a kind of its own."""

    @property
    def window(self) -> Pair:
        return len(self.rows[0]), len(self.columns[0])

    @property
    def pads(self) -> bool:
        """Whether there are places that hold no token."""
        return any(PADDING in places for axis in (self.rows, self.columns) for places in axis)

    def order(self, batch: int, grid: Pair) -> Order:
        """The windows of a batch of flat grids, kind after kind."""
        (height, width), size = grid, tokens(self.window)
        y, x = torch.tensor(self.rows)[:, None, :, None], torch.tensor(self.columns)[:, None]
        places = y * width + x
        if self.pads:
            places = places.masked_fill((y < 0) | (x < 0), PADDING)
        found, counts = [], []
        for last_row, rows in _kinds(len(self.rows), self.shift[0]):
            for last_column, columns in _kinds(len(self.columns), self.shift[1]):
                kind = places[rows, columns].reshape(-1, size)
                if not len(kind):  # one window covers an axis that is shifted all the same
                    continue
                found.append(_in_each(kind, batch, height * width, self.pads))
                counts.append(((last_row, last_column), len(found[-1])))
        return torch.cat(found), counts


def _kinds(count: int, shift: int) -> list[tuple[bool, slice]]:
    """Which windows of an axis are not, or are, the last of a shifted one."""
    if not shift:
        return [(False, slice(None))]
    return [(False, slice(count - 1)), (True, slice(count - 1, count))]


def _in_each(places: Tensor, batch: int, area: int, pads: bool) -> Tensor:
    """(windows, size) -> (batch*windows, size): the same places in each grid of a batch."""
    if batch == 1:
        return places
    moved = places + torch.arange(batch).view(-1, 1, 1) * area
    if pads:
        moved = moved.masked_fill(places < 0, PADDING)
    return moved.view(-1, places.shape[1])


def kinds(shift: Pair) -> list[Kind]:
    """The kinds of windows that there can be."""
    rows, columns = ((False,) if is_zero(moved) else (False, True) for moved in shift)
    return [(row, column) for row in rows for column in columns]


@lru_cache
def shifted_cut(grid: Pair, window: Pair, shift: Pair) -> Cut:
    """A grid that is padded at its end, and rolled by -shift."""
    rows, columns = map(shifted, grid, window, shift)
    return Cut(rows, columns, shift)


def within(counts: Sequence[tuple[Kind, int]], start: int, stop: int) -> list[tuple[Kind, int]]:
    """The kinds of the windows from `start` to `stop`, and how many of each there are."""
    found, first = [], 0
    for kind, count in counts:
        inside = min(stop, first + count) - max(start, first)
        if inside > 0:
            found.append((kind, inside))
        first += count
    return found
