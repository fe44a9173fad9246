"""Equal budgets: the widths, depths or MLP ratio at which a network costs what another one does.

First the one factor for all stages is found at which the cost passes the target, by bisection;
then the points of the lattice (`hierarch.spec.lattice`) that lie around it are all looked at. Costs
are the claims', so that no network is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal, get_args

from hierarch.errors import SpecError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.budget import Budget, BudgetName
from hierarch.spec.grid import Sides
from hierarch.spec.lattice import REACH, Freedom, Lattice, Point, lattices, ratio

TOLERANCE = 0.01
"""How far from a budget is as good as on it."""
POINTS = 8_000
"""Points of a lattice that are looked at around the crossing, at most."""
FIRST = 400
"""Of these, points at which only the first kind of number moves."""


@dataclass(frozen=True)
class Move:
    """One number of the spec that is another one now.

    >>> from hierarch.swapping import explain
    >>> print(explain("swin_tiny", "pooling", match="macs").match.moves[0])
    96 → 120 in stage 0
    """

    stage: int
    field: Literal["dim", "depth", "mlp_ratio"]
    old: float
    new: float

    def __str__(self) -> str:
        return f"{self.old:g} → {self.new:g} in stage {self.stage}"


@dataclass(frozen=True)
class Match:
    """A spec on a budget, how close it comes, and what was moved for it.

    >>> from hierarch.swapping import explain
    >>> found = explain("swin_tiny", "pooling", match="macs").match
    >>> abs(found.off) < 0.01
    True
    """

    spec: BackboneSpec
    budget: BudgetName
    size: Sides | None
    """The image's, in pixels, where the cost depends on it."""
    target: float
    """MACs or seconds for an image, or parameters."""
    cost: float
    moves: tuple[Move, ...]
    visited: int
    """Points of the lattice whose cost was worked out."""
    why: str = ""
    """Why it comes no closer, and what to do; empty where it is close enough."""

    @property
    def off(self) -> float:
        """The cost over the target, less 1."""
        return self.cost / self.target - 1

    @property
    def notes(self) -> tuple[str, ...]:
        """How close it is, what was moved, and why it is no closer, each in one line."""
        where = f" at {'x'.join(map(str, self.size))}" if self.size else ""
        shown = _in_ms if self.budget == "latency" else "{:,}".format
        unit = {"macs": "MACs", "params": "parameters", "latency": "ms an image"}[self.budget]
        budget = f"budget: {shown(self.target)} {unit}{where}"
        moved = "; ".join(
            f"{field} {', '.join(map(str, moves))}" for field, moves in self._by_field().items()
        )
        lines = [
            f"{budget}; now {shown(self.cost)} ({self.off:+.2%})",
            f"moved: {moved or 'nothing'}; of {self.visited:,} specs looked at",
        ]
        return (*lines, f"not within {TOLERANCE:.0%}: {self.why}") if self.why else tuple(lines)

    def _by_field(self) -> dict[str, list[Move]]:
        fields = dict.fromkeys(move.field for move in self.moves)
        return {field: [m for m in self.moves if m.field == field] for field in fields}


def match(
    spec: BackboneSpec,
    budget: Budget,
    target: int,
    *,
    stages: Sequence[int],
    move: Sequence[Freedom] = ("widths",),
) -> Match:
    """The spec, moved in these stages until it costs `target`.

    Of the points within 1 % of the target it is the one whose widths keep closest to a common
    factor, so that a width that doubles from stage to stage still does; then the one that moves
    least, and then the one nearest to the target. Where there is none, it is the point nearest to
    the target. The first kind in `move` goes to the target, the others vary around where they are.
    Raises `SpecError` for kinds that are none, and where no stage that may move is built.
    """
    check_freedoms(move)
    if not any(stage.index in stages for stage in spec.plan()):
        shown = ", ".join(map(str, stages))
        raise SpecError(f"stages {shown}: none is built, so that none can move; see out_indices")
    best: tuple[tuple[float, ...], Lattice, Point] | None = None
    visited = 0
    for lattice in lattices(spec, budget, stages=stages, move=move):
        key, point = _nearest(lattice, target)
        visited += len(lattice.costs)
        if best is None or key < best[0]:
            best = key, lattice, point
        if key[0] == 0:
            break
    assert best is not None
    (miss, *_), lattice, point = best
    found = lattice.at(point)
    return Match(
        spec=found,
        budget=budget.name,
        size=budget.size,
        target=target,
        cost=lattice.cost(point),
        moves=_moves(spec, found),
        visited=visited,
        why=_why(lattice, point, target) if miss else "",
    )


def check_freedoms(move: Sequence[str]) -> None:
    """Raises `SpecError` for what cannot move, and for nothing that does."""
    known = get_args(Freedom)
    if not move or isinstance(move, str) or not {*move} <= {*known} or len({*move}) < len(move):
        got = repr(move) if isinstance(move, str) else ", ".join(map(str, move)) or "nothing"
        raise SpecError(f"what may move are {', '.join(known)}, each once; got {got[:80]}")


def _in_ms(seconds: float) -> str:
    return f"{1000 * seconds:,.2f}"


def _nearest(lattice: Lattice, target: int) -> tuple[tuple[float, ...], Point]:
    """The best point around the crossing, and its key: how far it misses (0 within the tolerance),
    then how much it moves."""
    center = [axis.now for axis in lattice.axes]
    for kind in lattice.kinds():
        center, crosses = _crossing(lattice, kind, center, target)
        if crosses:
            missed = {point: _missed(lattice, point, target) for point in _around(lattice, center)}
            least = min(missed.values())
            nearest = (point for point, miss in missed.items() if miss == least)
            return min((_key(lattice, point, target), point) for point in nearest)
    end = tuple(center)
    return _key(lattice, end, target), end


def _missed(lattice: Lattice, point: Point, target: int) -> float:
    """By how much of the target a point misses it; 0 within the tolerance."""
    miss = abs(lattice.cost(point) - target) / target
    return miss if miss > TOLERANCE else 0.0


def _crossing(
    lattice: Lattice, kind: Freedom, center: list[float], target: int
) -> tuple[list[float], bool]:
    """Where the cost passes the target as the numbers of a kind move by one factor, before they are
    rounded to the lattice, and whether it does."""

    def at(factor: float) -> list[float]:
        axes = zip(lattice.axes, center, strict=True)
        return [factor * axis.now if axis.kind == kind else value for axis, value in axes]

    def rounded(values: Sequence[float]) -> Point:
        axes = zip(lattice.axes, values, strict=True)
        return tuple(axis.nearest(value)[0] for axis, value in axes)

    low, high = 1 / REACH, float(REACH)
    if not lattice.cost(rounded(at(low))) <= target <= lattice.cost(rounded(at(high))):
        end = low if lattice.cost(rounded(at(low))) > target else high
        return list(rounded(at(end))), False
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        if lattice.cost(rounded(at(middle))) < target:
            low = middle
        else:
            high = middle
    return at(high), True


def _around(lattice: Lattice, center: Sequence[float]) -> Iterator[Point]:
    """The points nearest to a center, on every axis as many values as there is room for."""
    kinds = lattice.kinds()
    counts = [1] * len(lattice.axes)
    rounds = [(POINTS, kinds)] if len(kinds) == 1 else [(FIRST, kinds[:1]), (POINTS, kinds)]
    for limit, growing in rounds:
        open_axes = [i for i, axis in enumerate(lattice.axes) if axis.kind in growing]
        while open_axes:
            i = min(open_axes, key=counts.__getitem__)
            full = counts[i] == len(lattice.axes[i].values)
            if full or math.prod(counts) // counts[i] * (counts[i] + 1) > limit:
                open_axes.remove(i)
            else:
                counts[i] += 1
    axes = zip(lattice.axes, center, counts, strict=True)
    return product(*(axis.nearest(value, count) for axis, value, count in axes))


def _key(lattice: Lattice, point: Point, target: int) -> tuple[float, ...]:
    miss = abs(lattice.cost(point) - target) / target
    widths, others = [], 0.0
    for axis, value in zip(lattice.axes, point, strict=True):
        factor = math.log(value / axis.now)
        if axis.kind == "widths":
            widths.append(factor)
        else:
            others += abs(factor) * (len(lattice.stages) if axis.stage is None else 1)
    # from stage to stage: 0 where all move by one factor
    uneven = round(sum(abs(b - a) for a, b in pairwise(widths)) + others, 9)
    return _missed(lattice, point, target), uneven, round(sum(map(abs, widths)), 9), miss


def _moves(old: BackboneSpec, new: BackboneSpec) -> tuple[Move, ...]:
    moves = []
    for i, (before, after) in enumerate(zip(old.stages, new.stages, strict=True)):
        moves += [
            Move(i, "dim", before.dim, after.dim),
            Move(i, "depth", before.depth, after.depth),
            Move(i, "mlp_ratio", ratio(old, i), ratio(new, i)),
        ]
    return tuple(move for move in moves if move.old != move.new)


def _why(lattice: Lattice, point: Point, target: int) -> str:
    lowest = lattice.cost(tuple(axis.values[0] for axis in lattice.axes))
    highest = lattice.cost(tuple(axis.values[-1] for axis in lattice.axes))
    kinds = lattice.kinds()
    others = [kind for kind in get_args(Freedom) if kind not in kinds]
    free = f"; let the {' or the '.join(others)} move, too" if others else ""
    moving = " and ".join(kinds)
    if not lowest <= target <= highest:
        return (
            f"the {moving}, moved by up to x {REACH}, reach from {lowest:,} to {highest:,}, and "
            f"the budget is {target:,}: swap fewer stages{free.replace('; let', ', or let')}"
        )
    beside = []
    for axis, value in zip(lattice.axes, point, strict=True):
        i = axis.values.index(value)
        choice = ", ".join(f"{v:g}" for v in axis.values[max(0, i - 1) : i + 2])
        where = "a factor" if axis.stage is None else f"stage {axis.stage}"
        beside.append(f"{where} of {choice}")
    return f"the {moving} that its parts allow lie too far apart: {'; '.join(beside)}{free}"
