"""The lattice of specs around a spec: the widths, depths and MLP ratios that its stages may have.

Widths are those at which every mixer of the stage works, in multiples of 8 channels where the
spec's own are, as in RegNet (Radosavovic et al. 2020, arXiv:2003.13678, section 3.3). Depths are
whole cycles of blocks where they were. The MLP's ratio moves in 32nds of itself, in all stages
alike.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import MAX_DEPTH
from hierarch.spec.budget import Budget
from hierarch.spec.checks import MAX_BLOCKS
from hierarch.spec.load import override
from hierarch.spec.parts import MixerSpec
from hierarch.spec.plan import StagePlan

Freedom = Literal["widths", "depths", "ratio"]
"""What may move."""
MULTIPLES = (8, 4, 2, 1)
"""Of channels; a smaller one is for where a larger one is too coarse."""
REACH = 8
"""The largest factor by which anything moves."""
RATIO_STEPS = 32
MAX_DIM, MAX_RATIO = 16_384, 64
"""The bounds of the spec's fields."""

Point = tuple[float, ...]
"""A value for each axis."""


@dataclass(frozen=True)
class Axis:
    """One number that may move: its value now, and those that it may take, rising."""

    kind: Freedom
    stage: int | None
    """None for the ratio's factor, which is of all stages that move."""
    now: float
    values: tuple[float, ...]

    def nearest(self, wanted: float, count: int = 1) -> tuple[float, ...]:
        """The `count` values nearest to one, by their ratio to it; rising."""
        place = bisect(self.values, wanted)
        beside = self.values[max(0, place - count) : place + count]
        by_ratio = sorted(beside, key=lambda value: abs(math.log(value / wanted)))
        return tuple(sorted(by_ratio[:count]))


@dataclass(frozen=True)
class Lattice:
    """The points around a spec, and what each of them costs."""

    spec: BackboneSpec
    budget: Budget
    stages: tuple[int, ...]
    """Those that move."""
    axes: tuple[Axis, ...]
    costs: dict[Point, int] = field(default_factory=dict, compare=False)
    """Of the points that were looked at."""
    _parts: dict[tuple[float, ...], int] = field(default_factory=dict, compare=False)

    @cached_property
    def plan(self) -> tuple[StagePlan, ...]:
        return self.spec.plan()

    @cached_property
    def _now(self) -> tuple[list[int], list[int]]:
        """The widths and depths of the spec's own stages."""
        return [stage.dim for stage in self.plan], [stage.depth for stage in self.plan]

    def kinds(self) -> list[Freedom]:
        return list(dict.fromkeys(axis.kind for axis in self.axes))

    def cost(self, point: Point) -> int:
        """What the spec costs at a point: a sum whose terms are worked out once."""
        if point not in self.costs:
            dims, depths, factor = self._moved(point)
            first = self.spec.stem_dim or dims[0]
            total = self._part(("stem", first))
            for index, (in_dim, dim) in enumerate(zip([first, *dims], dims, strict=False)):
                own = factor if index in self.stages else 1
                total += self._part((index, in_dim, dim, depths[index], own))
            self.costs[point] = total + self._part(("head", dims[-1]))
        return self.costs[point]

    def at(self, point: Point) -> BackboneSpec:
        """The spec at a point."""
        dims, depths, factor = self._moved(point)
        stages = [
            dict(stage) | {"dim": dim, "depth": depth}
            for stage, dim, depth in zip(self.spec.stages, dims, depths, strict=False)
        ] + [dict(stage) for stage in self.spec.stages[len(dims) :]]
        changes = {"stages": stages}
        if factor != 1:
            at_top = len(self.stages) == len(self.plan) and not any(s["mlp_ratio"] for s in stages)
            if at_top:
                return override(
                    self.spec, {**changes, "mlp_ratio": float(self.spec.mlp_ratio * factor)}
                )
            for index in self.stages:
                stages[index]["mlp_ratio"] = float(ratio(self.spec, index) * factor)
        return override(self.spec, changes)

    def _moved(self, point: Point) -> tuple[list[int], list[int], float]:
        (dims, depths), factor = map(list, self._now), 1.0
        for axis, value in zip(self.axes, point, strict=True):
            if axis.stage is None:
                factor = value
            elif axis.kind == "widths":
                dims[axis.stage] = int(value)
            else:
                depths[axis.stage] = int(value)
        return dims, depths, factor

    def _part(self, key: tuple[Any, ...]) -> int:
        if key not in self._parts:
            match key:
                case ("stem", dim):
                    cost = self.budget.stem(dim)
                case ("head", dim):
                    cost = self.budget.head(replace(self.plan[-1], dim=dim))
                case (index, in_dim, dim, depth, factor):
                    cost = self.budget.stage(self._stage(index, in_dim, dim, depth, factor))
            self._parts[key] = cost
        return self._parts[key]

    def _stage(self, index: int, in_dim: int, dim: int, depth: int, factor: float) -> StagePlan:
        hidden = int(dim * (ratio(self.spec, index) * factor))
        cycle = tuple(replace(b, dim=dim, hidden_dim=hidden) for b in self.plan[index].cycle)
        return replace(self.plan[index], in_dim=in_dim, dim=dim, depth=depth, cycle=cycle)


def lattices(
    spec: BackboneSpec, budget: Budget, *, stages: Sequence[int], move: Sequence[Freedom]
) -> Iterator[Lattice]:
    """The lattices in which these stages move, from the coarsest to the finest."""
    moved = [stage for stage in spec.plan() if stage.index in stages]
    common = math.gcd(*(stage.dim for stage in moved))
    before = None
    for multiple in (m for m in MULTIPLES if common % m == 0):
        axes = _axes(spec, moved, move, multiple)
        if axes != before:
            yield Lattice(spec, budget, tuple(stage.index for stage in moved), axes)
        before = axes


def ratio(spec: BackboneSpec, stage: int) -> float:
    """The MLP's ratio in a stage."""
    return spec.stages[stage].mlp_ratio or spec.mlp_ratio


def mixers(spec: BackboneSpec, stage: int) -> tuple[MixerSpec, ...]:
    """The cycle of mixers of a stage."""
    return spec.stages[stage].mixer or spec.mixer or ()


def _axes(
    spec: BackboneSpec, moved: Sequence[StagePlan], move: Sequence[Freedom], multiple: int
) -> tuple[Axis, ...]:
    widths = {stage.index: _widths(spec, stage, multiple) for stage in moved}
    narrowest = {
        stage.index: widths[stage.index][0] if "widths" in move else stage.dim for stage in moved
    }
    room = (MAX_BLOCKS - sum(stage.depth for stage in spec.stages)) // len(moved)
    axes: dict[Freedom, list[Axis]] = {
        "widths": [Axis("widths", s.index, s.dim, widths[s.index]) for s in moved],
        # a stage that is only its downsampling gets no blocks
        "depths": [Axis("depths", s.index, s.depth, _depths(s, room)) for s in moved if s.depth],
        "ratio": [Axis("ratio", None, 1, _factors(spec, narrowest))],
    }
    return tuple(axis for kind in move for axis in axes[kind])


def _widths(spec: BackboneSpec, stage: StagePlan, multiple: int) -> tuple[int, ...]:
    # neither the MLP nor the head's hidden layer is left without a width
    hidden = (ratio(spec, stage.index), (spec.head and spec.head.hidden_ratio) or 1)
    low = max(stage.dim / REACH, *(1 / share for share in hidden))
    high = min(stage.dim * REACH, MAX_DIM)
    own = [block.mixer for block in stage.cycle]  # also those that a larger depth brings in
    steps = range(math.ceil(low / multiple), high // multiple + 1)
    fitting = [m * multiple for m in steps if all(_works(mixer, m * multiple) for mixer in own)]
    return tuple(sorted({stage.dim, *fitting}))


def _works(mixer: MixerSpec, dim: int) -> bool:
    try:
        mixer.check(dim=dim)
    except ValueError:
        return False
    return True


def _depths(stage: StagePlan, room: int) -> tuple[int, ...]:
    cycle = len(stage.cycle)
    step = cycle if stage.depth % cycle == 0 else 1
    low = max(1, math.ceil(stage.depth / REACH / step))
    high = min(stage.depth * REACH, stage.depth + room, MAX_DEPTH)
    return tuple(range(low * step, high + 1, step))


def _factors(spec: BackboneSpec, narrowest: dict[int, int]) -> tuple[float, ...]:
    def fits(factor: float) -> bool:
        ratios = [(dim, ratio(spec, stage) * factor) for stage, dim in narrowest.items()]
        return all(own <= MAX_RATIO and int(dim * own) >= 1 for dim, own in ratios)

    steps = (k / RATIO_STEPS for k in range(RATIO_STEPS // REACH, RATIO_STEPS * REACH + 1))
    return tuple(factor for factor in steps if factor == 1 or fits(factor))
