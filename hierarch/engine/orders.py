"""Which token is in which slot of which window, for one map or for several together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hierarch.engine.caches import Cache
from hierarch.engine.gathering import has_padding
from hierarch.nn.cut import Cut, Kind, Runs
from hierarch.spec.grid import tokens

MAX_KEPT_SLOTS = 1 << 14
"""Slots of a map whose order is kept, at most. For a few images, working it out takes a hundredth
of their time."""
PADDING = -1

Order = tuple[Tensor, Runs]
"""(windows, N): the token in each slot of each window, or `PADDING`; and the windows' kinds."""
kept: Cache[Order] = Cache(8 << 20)
"""Of two cuts in each of four stages, at eight sizes or more."""


def alike(
    cuts: Sequence[tuple[Cut, int]], starts: Sequence[int], orders: dict[tuple[Cut, int], Order]
) -> Iterator[tuple[Cut, Order, bool]]:
    """The windows of several maps, those that are mixed alike together: one of their cuts, the
    tokens in their slots, and whether any slot has none."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, (cut, _) in enumerate(cuts):
        groups.setdefault((cut.window, cut.shift), []).append(i)
    for group in groups.values():
        parts = [(orders[cuts[i]], starts[i]) for i in group]
        pads = any(has_padding(cuts[i][0]) for i in group)
        yield cuts[group[0]][0], parts[0][0] if len(cuts) == 1 else _joined(parts), pads


def _joined(parts: Sequence[tuple[Order, int]]) -> Order:
    """The windows of several maps, kind after kind; each map's tokens start at a number."""
    by_kind: dict[Kind, list[Tensor]] = {}
    for (windows, runs), start in parts:
        moved = torch.where(windows == PADDING, PADDING, windows + start)
        for (kind, _), some in zip(runs, moved.split_with_sizes([n for _, n in runs]), strict=True):
            by_kind.setdefault(kind, []).append(some)
    runs = [(kind, sum(map(len, some))) for kind, some in by_kind.items()]
    return torch.cat([*itertools.chain(*by_kind.values())]), runs


def order(cut: Cut, batch: int) -> Order:
    """Which token is in which slot, for a batch of grids."""
    if batch * cut.count * tokens(cut.window) > MAX_KEPT_SLOTS:
        return _order(cut, batch)
    return kept.get((cut, batch), lambda: _order(cut, batch), lambda made: made[0].nbytes)


def _order(cut: Cut, batch: int) -> Order:
    slots = cut.slots(batch, device=torch.device("cpu"))
    places = torch.full((batch * cut.count * tokens(cut.window),), PADDING)
    places.index_copy_(0, slots, torch.arange(len(slots)))
    return places.view(-1, tokens(cut.window)), [run for run in cut.runs(batch) if run[1]]
