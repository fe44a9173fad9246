"""Which tokens of a grid each window holds, for mixers whose windows are independent.

A shifted grid has four kinds of windows: inside, in the last column, in the last row, and the
corner, since only the last window of an axis holds both ends of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hierarch.spec.base import Pair, ceil_div, tokens

PADDING = -1
Kind = tuple[bool, bool]
"""Whether a window is the last of its column, and the last of its row, of a shifted grid."""


def shifted(size: int, window: int, shift: int) -> Tensor:
    """(windows, window): the places that slots hold on an axis that is rolled by -shift."""
    count = ceil_div(size, window)
    places = (torch.arange(count * window) + shift) % (count * window)
    return places.masked_fill(places >= size, PADDING).view(count, window)


def led(size: int, window: int, lead: int) -> Tensor:
    """(windows, window): the same on an axis with `lead` zeros before it."""
    count = ceil_div(lead + size, window)
    places = torch.arange(count * window) - lead
    return places.masked_fill((places < 0) | (places >= size), PADDING).view(count, window)


def dilated(size: int, window: int) -> Tensor:
    """(windows, window): the same where a window takes every (size / window)th place."""
    count = ceil_div(size, window)
    places = torch.arange(count * window)
    return places.masked_fill(places >= size, PADDING).view(window, count).T


@dataclass(frozen=True)
class Cut:
    """A grid cut into windows."""

    rows: Tensor
    """(nH, h): the rows that each row of windows holds; `PADDING` for none."""
    columns: Tensor
    """(nW, w)"""
    shift: Pair = (0, 0)
    """By how much it is rolled; on an axis that is, the last window is of a kind of its own."""

    @property
    def window(self) -> Pair:
        return self.rows.shape[1], self.columns.shape[1]

    def order(self, batch: int, grid: Pair) -> tuple[Tensor, list[tuple[Kind, int]]]:
        """(windows, h*w): the tokens of every window in a batch of flat grids, kind after kind;
        and how many windows there are of each kind."""
        height, width = grid
        first = torch.arange(batch).view(-1, 1, 1, 1, 1) * (height * width)
        found, counts = [], []
        for last_row, rows in _kinds(self.rows, self.shift[0]):
            for last_column, columns in _kinds(self.columns, self.shift[1]):
                y, x = rows[:, None, :, None], columns[None, :, None, :]
                place = torch.where((y < 0) | (x < 0), PADDING, y * width + x)
                index = torch.where(place < 0, PADDING, place + first)
                found.append(index.reshape(-1, tokens(self.window)))
                counts.append(((last_row, last_column), len(found[-1])))
        return torch.cat(found), counts

    def pads(self) -> bool:
        return bool((self.rows < 0).any() or (self.columns < 0).any())


def _kinds(axis: Tensor, shift: int) -> list[tuple[bool, Tensor]]:
    return [(False, axis[:-1]), (True, axis[-1:])] if shift else [(False, axis)]


def kinds(shift: Pair) -> list[Kind]:
    """The kinds of windows that there can be."""
    rows, columns = ((False, True) if moved else (False,) for moved in shift)
    return [(row, column) for row in rows for column in columns]


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


def apart_mask(window: Pair, shift: Pair, kind: Kind) -> Tensor:
    """(N, N): which tokens of a window of this kind come from different ends of the image."""
    sides = []
    for side, moved, last in zip(window, shift, kind, strict=True):
        end = torch.arange(side) >= (side - moved if last else side)
        sides.append(end[:, None] != end[None, :])
    rows, columns = sides
    either = rows[:, None, :, None] | columns[None, :, None, :]
    return either.reshape(tokens(window), tokens(window))
