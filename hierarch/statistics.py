"""What the numbers of several seeds show, and what they do not.

Two arms are compared seed by seed: with the same seed they see the same images in the same order,
so that what is luck in both cancels in the difference. The test is Student's t test of these
differences; of several comparisons in one grid, Holm's procedure (1979, "A simple sequentially
rejective multiple test procedure") keeps the chance that any of them claims a difference where
there is none at 5 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LEVEL = 0.05
FEWEST = 3
"""Seeds below which no difference is claimed."""
Word = Literal["better", "worse", "no difference shown", "too few seeds"]


@dataclass(frozen=True)
class Summary:
    """The mean of some numbers, how far they spread, and where their true mean lies."""

    count: int
    mean: float
    sd: float | None
    """The sample's standard deviation; None for a single number."""
    low: float | None
    high: float | None
    """The ends of the 95 % interval of the mean, by Student's t distribution."""


@dataclass(frozen=True)
class Difference(Summary):
    """A summary of differences, and whether they show anything."""

    p: float | None = None
    """Of a mean difference at least as large where there is none; None with too few numbers."""
    adjusted: float | None = None
    """The same for all comparisons of the grid together."""
    word: Word = "too few seeds"


def summary(values: Sequence[float], *, resolution: float = 0.0) -> Summary:
    """Mean, standard deviation and 95 % interval of one or more numbers.

    `resolution` is the step in which the numbers are known. A spread smaller than that is taken to
    be that large, so that a few equal numbers are not taken to be exact.
    """
    count, mean = len(values), statistics.fmean(values)
    if count < 2:
        return Summary(count, mean, None, None, None)
    sd = statistics.stdev(values)
    half = _quantile(1 - LEVEL / 2, count - 1) * max(sd, resolution) / math.sqrt(count)
    return Summary(count, mean, sd, mean - half, mean + half)


def differences(
    arms: Mapping[str, Mapping[int, float]], reference: str, *, resolution: float = 0.0
) -> dict[str, Difference]:
    """Each arm less the reference, over the seeds that both have.

    `arms` has a number by seed for each arm, where more is better. An arm without a common seed is
    left out.
    """
    first = arms[reference]
    found: dict[str, Difference] = {}
    for name, values in arms.items():
        pairs = [values[seed] - first[seed] for seed in values if seed in first]
        if name == reference or not pairs:
            continue
        told = summary(pairs, resolution=resolution)
        p = _p(told, resolution) if told.count >= FEWEST else None
        found[name] = Difference(**vars(told), p=p)
    known = {name: one.p for name, one in found.items() if one.p is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return {
        name: _worded(one, adjusted[name]) if name in adjusted else one
        for name, one in found.items()
    }


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of several tests, each raised so that all may be held to one level together."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, so_far = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = so_far
    return adjusted


def _worded(one: Difference, adjusted: float) -> Difference:
    word: Word = "no difference shown"
    if adjusted < LEVEL:
        word = "better" if one.mean > 0 else "worse"
    return Difference(**vars(one) | {"adjusted": adjusted, "word": word})


def _p(told: Summary, resolution: float) -> float:
    """Two-sided, of Student's t test that the true mean is 0."""
    from scipy import stats

    assert told.sd is not None
    error = max(told.sd, resolution) / math.sqrt(told.count)
    if not error:
        return 0.0 if told.mean else 1.0
    return float(2 * stats.t.sf(abs(told.mean) / error, told.count - 1))


def _quantile(share: float, freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(share, freedom))
