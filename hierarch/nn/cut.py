"""Which window holds each token of a grid, and where in it.

A window has a slot for each token that it can hold. An axis whose shifted windows are masked has
two kinds of windows, since only the last one holds both ends of the image: 2ⁿ kinds on n axes.
Windows are numbered kind after kind, so that windows of a kind follow each other and share one
mask.

Sizes may be symbolic (torch.compile, torch.export) or traced (torch.jit).
"""

from __future__ import annotations

import functools
import itertools
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hierarch.nn.padding import is_zero

Kind = tuple[bool, ...]
"""For each axis, whether a window is the last one of an axis that is shifted and masked."""
Runs = list[tuple[Kind, int]]
"""How many windows of each kind follow each other."""


@dataclass(frozen=True)
class Axis(ABC):
    """One axis of a grid, cut into windows.

    >>> import torch
    >>> Shifted(size=9, window=4, by=2).count
    3
    >>> Shifted(size=9, window=4, by=2).places(torch.device("cpu"))[0]
    tensor([2, 2, 0, 0, 0, 0, 1, 1, 1])
    """

    size: int
    window: int

    lead = 0
    """Zeros before it."""

    @property
    def count(self) -> int:
        """Number of windows."""
        return (self.lead + self.size + self.window - 1) // self.window

    @property
    def shift(self) -> int:
        """Tokens at the end of the last window that are kept apart from its others, since only a
        shift joined them. Where it is not 0, the last window is of its own kind."""
        return 0

    @abstractmethod
    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(size), twice: the window of each position, and the slot in that window."""

    def ranks(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(count), each: the number of windows of earlier kinds, the number of windows of the same
        kind, and the rank among the latter."""
        windows = torch.arange(self.count, device=device)
        if is_zero(self.shift):
            return torch.zeros_like(windows), torch.full_like(windows, self.count), windows
        others = self.count - 1
        earlier = torch.where(windows == others, others, 0)
        return earlier, torch.where(windows == others, 1, others), windows - earlier

    def _split(self, places: Tensor) -> tuple[Tensor, Tensor]:
        windows = places // self.window
        return windows, places - windows * self.window


@dataclass(frozen=True)
class Rolled(Axis):
    """Padded at its end, then rolled by -`by`: the last window holds both ends of the image, and
    does not keep them apart.

    >>> Rolled(size=8, window=4, by=2).shift
    0
    """

    by: int = 0

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        padded = self.count * self.window
        rolled = torch.arange(self.size, device=device) + (padded - self.by)
        # not a remainder: ONNX has none by a symbolic number
        return self._split(torch.where(rolled >= padded, rolled - padded, rolled))


@dataclass(frozen=True)
class Shifted(Rolled):
    """Rolled, with both ends of the image kept apart (Swin, arXiv:2103.14030, section 3.2).

    >>> Shifted(size=8, window=4, by=2).shift
    2
    """

    @property
    def shift(self) -> int:
        return self.by


@dataclass(frozen=True)
class FrontPadded(Axis):
    """With `lead` zeros before it, and padded at its end (Swin-MLP's shift).

    >>> FrontPadded(size=8, window=4, lead=2).count
    3
    """

    lead: int = 0

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return self._split(torch.arange(self.size, device=device) + self.lead)


@dataclass(frozen=True)
class Dilated(Axis):
    """Padded at its end; a window takes every `count`-th position (MaxViT's grid attention).

    >>> import torch
    >>> Dilated(size=8, window=4).places(torch.device("cpu"))[0]
    tensor([0, 1, 0, 1, 0, 1, 0, 1])
    """

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        positions = torch.arange(self.size, device=device)
        slots = positions // self.count
        return positions - slots * self.count, slots


@dataclass(frozen=True)
class Cut:
    """A grid cut into windows, axis by axis.

    >>> cut = Cut((Shifted(size=8, window=4, by=2), Dilated(size=8, window=4)))
    >>> cut.window, cut.count
    ((4, 4), 4)
    """

    axes: tuple[Axis, ...]

    @property
    def window(self) -> Any:
        return tuple(axis.window for axis in self.axes)

    @property
    def shift(self) -> Any:
        return tuple(axis.shift for axis in self.axes)

    @property
    def count(self) -> Any:
        """Number of windows of a grid."""
        return product(axis.count for axis in self.axes)

    def runs(self, batch: int) -> Runs:
        """The windows of a batch of grids, kind after kind."""
        counts = [_kind_counts(axis) for axis in self.axes]
        return [
            (kind, batch * product(of[last] for of, last in zip(counts, kind, strict=True)))
            for kind in kinds(self.shift)
        ]

    def slots(self, batch: int, *, device: torch.device) -> Tensor:
        """(B * tokens): the slot of each token of a batch of grids, where window follows window."""
        windows, places = zip(*(axis.places(device) for axis in self.axes), strict=True)
        ranks = zip(*(axis.ranks(device) for axis in self.axes), strict=True)
        index: Any = (slice(None), *_meshed(windows))
        slots: Tensor = self._numbers(batch, *map(_meshed, ranks))[index] * product(self.window)
        inside = 1
        for axis, place in reversed(list(zip(self.axes, _meshed(places), strict=True))):
            slots = slots + place * inside
            inside = inside * axis.window
        return slots.flatten()

    def _numbers(
        self, batch: int, earlier: list[Tensor], alike: list[Tensor], rank: list[Tensor]
    ) -> Tensor:
        """(B, *counts): the number of each window, where kind follows kind."""
        number = torch.arange(batch, device=rank[0].device).view(-1, *[1] * len(self.axes))
        for of_kind, place in zip(alike, rank, strict=True):
            number = number * of_kind + place
        counts = [axis.count for axis in self.axes]
        for i, before in enumerate(earlier):  # the windows of kinds that first differ at axis i
            same: Any = product(alike[:i])
            number = number + batch * same * before * product(counts[i + 1 :])
        return number


def kinds(shift: Sequence[int]) -> list[Kind]:
    """The kinds of windows of a grid with this shift, in the order of their numbers."""
    return list(itertools.product(*((False,) if is_zero(by) else (False, True) for by in shift)))


def kinds_by_axis(shift: Sequence[int]) -> tuple[int, ...]:
    """The number of kinds of windows along each axis."""
    return tuple(1 if is_zero(by) else 2 for by in shift)


def product(sizes: Iterable[Any]) -> Any:
    """The product of sizes that may be symbolic: torch.compile has no `math.prod` of them."""
    return functools.reduce(operator.mul, sizes, 1)


def _kind_counts(axis: Axis) -> dict[bool, int]:
    return {False: axis.count if is_zero(axis.shift) else axis.count - 1, True: 1}


def _meshed(lines: Sequence[Tensor]) -> list[Tensor]:
    """(n_i) each -> shapes that broadcast to (n_0, n_1, ...)."""
    count = len(lines)
    return [line.view(-1, *[1] * (count - 1 - i)) for i, line in enumerate(lines)]


def shifted_cut(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int], *, masked: bool = True
) -> Cut:
    """A grid that is padded at its end, and rolled by -shift; if `masked`, tokens that only the
    shift joined are kept apart.

    >>> shifted_cut((14, 14), (7, 7), (3, 3)).runs(1)
    [((False, False), 1), ((False, True), 1), ((True, False), 1), ((True, True), 1)]
    """
    return Cut(tuple(map(Shifted if masked else Rolled, grid, window, shift)))
