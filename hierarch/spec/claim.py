"""The claim: a network's cost at any image size by the formulas of its parts, in exact integers.

It needs no torch. `hierarch.measure` compares it with fvcore's count.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from hierarch.spec.backbone import BackboneSpec, StagePlan
from hierarch.spec.grid import Pair, ceil_div, pair, tokens

PARTS = ("downsampling", "norm", "mixer", "mlp")
"""The parts of a stage's cost."""


@dataclass(frozen=True)
class StageClaim:
    """The claim for one stage on its grid, in MACs by part."""

    grid: Pair
    parts: dict[str, int]
    padding: int

    @property
    def macs(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Claim:
    """The claim for a network at one image size, in MACs."""

    stem: int
    stages: tuple[StageClaim, ...]
    head: int
    padding: int

    @property
    def macs(self) -> int:
        return self.stem + sum(stage.macs for stage in self.stages) + self.head


def claim(spec: BackboneSpec, size: Pair) -> Claim:
    """The claimed cost for one image of `size` pixels, (height, width)."""
    plan = spec.plan()
    dim, grid = plan[0].in_dim, spec.stem.grid(size)
    stem = stem_macs(spec, dim=dim, size=size)
    padding = spec.stem.padding_macs(dim=dim, size=size)
    stages = []
    for stage in plan:
        stages.append(stage_claim(stage, grid))
        grid = stages[-1].grid
    head = head_macs(spec, plan[-1], grid=grid)
    padding += sum(stage.padding for stage in stages)
    return Claim(stem=stem, stages=tuple(stages), head=head, padding=padding)


def stem_macs(spec: BackboneSpec, *, dim: int, size: Pair) -> int:
    """The claim for the stem and the position embedding, `dim` wide."""
    position = spec.position_embedding
    embedded = position.macs(dim=dim, grid=spec.stem.grid(size)) if position else 0
    return spec.stem.macs(dim=dim, size=size) + embedded


def head_macs(spec: BackboneSpec, last: StagePlan, *, grid: Pair) -> int:
    """The claim for the head, on the last stage's grid; 0 without a head."""
    return spec.head.macs(dim=last.dim, grid=grid, norm=last.norm) if spec.head else 0


def stage_claim(stage: StagePlan, grid: Pair) -> StageClaim:
    """The claim for a stage, for the grid that comes in."""
    dim, parts, padding = stage.dim, dict.fromkeys(PARTS, 0), 0
    if stage.downsample:
        downsample, in_dim = stage.downsample, stage.in_dim
        parts["downsampling"] = downsample.macs(in_dim=in_dim, dim=dim, grid=grid)
        padding = downsample.padding_macs(in_dim=in_dim, dim=dim, grid=grid)
        grid = downsample.grid(grid)
    mixers = Counter(stage.mixers)  # blocks have few different ones, and a search asks often
    norms = stage.block.norms * stage.depth + (stage.output_norm is not None)
    parts["norm"] = norms * stage.norm.macs(dim=dim, grid=grid)
    parts["mixer"] = sum(n * mixer.macs(dim=dim, grid=grid) for mixer, n in mixers.items())
    # two linear layers: N·C·D + N·D·C
    parts["mlp"] = stage.depth * 2 * tokens(grid) * dim * stage.hidden_dim
    padding += sum(n * mixer.padding_macs(dim=dim, grid=grid) for mixer, n in mixers.items())
    return StageClaim(grid=grid, parts=parts, padding=padding)


def _times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0], a[1] * b[1]


def base_size(spec: BackboneSpec) -> Pair:
    """The smallest image at which nothing is padded: patch * 2^(stages-1) * window, for Swin.

    A network without windows pads nothing at multiples of its stride, so for it this is its
    nominal size, rounded up to the stride.
    """
    stride, aligned = spec.stem.stride(), spec.stem.stride()
    windowed = False
    for stage in spec.plan():
        if stage.downsample:
            stride = _times(stride, stage.downsample.stride())
        for mixer in dict.fromkeys(stage.mixers):
            (h, w), tile = aligned, _times(stride, mixer.tile())
            windowed |= mixer.tile() != (1, 1)
            aligned = math.lcm(h, tile[0]), math.lcm(w, tile[1])
    if windowed:
        return aligned
    (h, w), (ah, aw) = pair(spec.input_size), aligned
    return ceil_div(h, ah) * ah, ceil_div(w, aw) * aw


def growing(spec: BackboneSpec) -> list[str]:
    """The parts whose cost per token is unbounded as the grid grows, in words; [] if linear.

    Decided from the claim in exact arithmetic, on grids of 2^30 to 2^60 tokens a side: a cost per
    token that converges (the effect of borders halves with every doubling) is no higher in the
    second half of these than in the first; one that grows, even like a logarithm, is.
    """
    unbounded: dict[str, list[str]] = {}
    for stage in spec.plan():
        for mixer in dict.fromkeys(stage.mixers):
            if _unbounded([mixer.macs(dim=stage.dim, grid=grid) for grid in _GRIDS]):
                cost = f"{mixer.type} costs {mixer.formula}"
                unbounded.setdefault(cost, []).append(str(stage.index))
    if unbounded or not _unbounded([claim(spec, grid).macs for grid in _GRIDS]):
        return [f"{cost} in stage {', '.join(stages)}" for cost, stages in unbounded.items()]
    return ["a part other than the mixers grows"]


_DOUBLINGS = range(30, 61)
_GRIDS = [(2**k, 2**k) for k in _DOUBLINGS]


def _unbounded(costs: list[int]) -> bool:
    per_token = [Fraction(cost, 4**k) for cost, k in zip(costs, _DOUBLINGS, strict=True)]
    middle = len(per_token) // 2
    return max(per_token[middle:]) > max(per_token[:middle]) * Fraction(10**9 + 1, 10**9)
