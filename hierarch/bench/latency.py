"""Equal latency: the spec around another one that takes as long an image as a third one does.

A latency is no formula, so few specs are timed, all beside the reference in one rotation: specs of
several budgets of MACs first, and then of budgets around the one at which, by interpolation, the
latency would be the reference's. The specs themselves are found by their claims.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

from hierarch.bench.run import benchmark
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.budget import Macs, spent
from hierarch.spec.grid import Sides
from hierarch.spec.lattice import Freedom
from hierarch.spec.match import TOLERANCE, Match, match

SHARES = (0.6, 1.0, 1.6)
"""Of the reference's MACs, in the first rotation."""
NEAR = (0.95, 1.0, 1.05)
"""Of the budget that interpolation finds, in the rotations after it."""
ROTATIONS = 3
ROUNDS = 7


def match_latency(
    reference: BackboneSpec,
    spec: BackboneSpec,
    size: Sides,
    *,
    stages: Sequence[int],
    move: Sequence[Freedom] = ("widths",),
    rounds: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[int, int], object] | None = None,
) -> Match:
    """`spec`, moved in these stages until an image of `size` takes as long as with `reference`.

    One image a call, in float32 on the CPU, forward, with random weights. Nine specs are timed at
    most. `clock` and `advance` are `benchmark`'s; the steps are those of one rotation.
    """
    budget, share = Macs.of(spec, size), 1.0
    macs = spent(Macs.of(reference, size), reference.plan())
    found: dict[BackboneSpec, tuple[Match, float]] = {}
    """By spec: the match on MACs, and its time over the reference's."""
    visited, seconds = 0, 0.0
    for rotation in range(ROTATIONS):
        if any(abs(ratio - 1) <= TOLERANCE for _, ratio in found.values()):
            break
        shares = SHARES if rotation == 0 else tuple(near * share for near in NEAR)
        targets = [max(1, round(macs * s)) for s in shares]
        tried = [match(spec, budget, target, stages=stages, move=move) for target in targets]
        visited += sum(one.visited for one in tried)
        new = {one.spec: one for one in tried if one.spec not in found}
        if not new:
            break
        report = benchmark(
            [reference, *new],
            sizes=[size],
            rounds=rounds or ROUNDS,
            memory=False,
            gemm_side=0,
            clock=clock,
            advance=advance,
        )
        first, *rows = report.settings[0].rows
        seconds = first.median
        found |= {
            one.spec: (one, row.vs_first) for one, row in zip(new.values(), rows, strict=True)
        }
        share = crossing([(one.cost / macs, ratio) for one, ratio in found.values()])
    best, ratio = min(found.values(), key=lambda pair: abs(math.log(pair[1])))
    return Match(
        spec=best.spec,
        budget="latency",
        size=size,
        target=seconds,
        cost=seconds * ratio,
        moves=best.moves,
        visited=visited,
        why=_why(found.values(), ratio) if abs(ratio - 1) > TOLERANCE else "",
    )


def crossing(timed: Sequence[tuple[float, float]]) -> float:
    """The share of MACs at which the time's ratio would be 1, from pairs of the two: between its
    neighbors as a power law, beyond the outermost in proportion.

    >>> round(crossing([(0.5, 0.8), (1.0, 1.6), (2.0, 3.2)]), 3)
    0.625
    >>> crossing([(0.5, 2.0), (1.0, 4.0)])
    0.25
    """
    points = sorted((math.log(share), math.log(ratio)) for share, ratio in timed)
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 <= 0 <= y1 and y0 < y1:
            return math.exp(x0 - y0 * (x1 - x0) / (y1 - y0))
    x, y = min(points, key=lambda point: abs(point[1]))
    return math.exp(x - y)


def _why(found: Collection[tuple[Match, float]], ratio: float) -> str:
    limits = [one.why for one, _ in found if one.why]
    why = f"of {len(found)} specs timed the nearest takes {ratio:.3f} of the time"
    return f"{why}; {limits[-1]}" if limits else f"{why}; times vary by as much on a busy machine"
