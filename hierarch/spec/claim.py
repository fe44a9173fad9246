"""The claim: a network's cost at any image size by the formulas of its parts, in exact integers.

It needs no torch. `hierarch.measure` compares it with fvcore's count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides, ceil_div, times, tokens
from hierarch.spec.parts import Part
from hierarch.spec.plan import StagePlan

PARTS = ("downsampling", "position", "norm", "mixer", "mlp")
"""The parts of a stage's cost."""


@dataclass(frozen=True)
class StageClaim:
    """The claim for one stage on its grid, in MACs by part."""

    grid: Sides
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


def claim(spec: BackboneSpec, size: Sides) -> Claim:
    """The claimed cost for one image of `size` pixels."""
    plan = spec.plan()
    dim, grid = plan[0].in_dim, spec.tokens_of(size)
    stem = stem_macs(spec, dim=dim, size=size)
    padding = spec.stem.padding_macs(dim=dim, size=size)
    stages = []
    for stage in plan:
        stages.append(stage_claim(stage, grid))
        grid = stages[-1].grid
    head = head_macs(spec, plan[-1], grid=grid)
    padding += sum(stage.padding for stage in stages)
    return Claim(stem=stem, stages=tuple(stages), head=head, padding=padding)


def stem_macs(spec: BackboneSpec, *, dim: int, size: Sides) -> int:
    """The claim for the stem and the position embedding, `dim` wide."""
    position = spec.position_embedding
    embedded = position.macs(dim=dim, grid=spec.stem.grid(size)) if position else 0
    return spec.stem.macs(dim=dim, size=size) + embedded


def head_macs(spec: BackboneSpec, last: StagePlan, *, grid: Sides) -> int:
    """The claim for the head, on the last stage's grid; 0 without a head."""
    if spec.head is None:
        return 0
    return spec.head.macs(dim=last.dim, grid=grid, norm=last.norm, classifiers=spec.classifiers)


def stage_claim(stage: StagePlan, grid: Sides) -> StageClaim:
    """The claim for a stage, for the grid that comes in."""
    dim, parts, padding = stage.dim, dict.fromkeys(PARTS, 0), 0
    if stage.downsample:
        downsample, in_dim = stage.downsample, stage.in_dim
        parts["downsampling"] = downsample.macs(in_dim=in_dim, dim=dim, grid=grid)
        padding = downsample.padding_macs(in_dim=in_dim, dim=dim, grid=grid)
        grid = downsample.grid(grid)
    if stage.position:
        parts["position"] = stage.position.macs(dim=dim, grid=grid)
    if stage.output_norm:
        parts["norm"] = stage.output_norm.macs(dim=dim, grid=grid)
    for block, count in stage.counts():  # of few kinds, and a search asks often
        inside = block.positions.values()
        parts["position"] += count * sum(one.macs(dim=dim, grid=grid) for one in inside)
        parts["norm"] += count * block.norms * block.norm.macs(dim=dim, grid=grid)
        parts["mixer"] += count * block.mixer.macs(dim=dim, grid=grid)
        parts["mlp"] += count * block.channel_mixer.macs(block, grid=grid)
        padding += count * block.mixer.padding_macs(dim=dim, grid=grid)
    return StageClaim(grid=grid, parts=parts, padding=padding)


def base_size(spec: BackboneSpec) -> Sides:
    """The smallest image at which nothing is padded: patch * 2^(stages-1) * window, for Swin.

    A network without windows pads nothing at multiples of its stride, so for it this is its
    nominal size, rounded up to the stride.
    """
    stride, aligned = spec.stem.stride(), spec.stem.stride()
    windowed = False
    for stage in spec.plan():
        if stage.downsample:
            stride = times(stride, stage.downsample.stride())
        for mixer in dict.fromkeys(stage.mixers):
            if any(side > 1 for side in mixer.tile()):
                windowed = True
                aligned = tuple(map(math.lcm, aligned, times(stride, mixer.tile())))
            else:
                aligned = tuple(map(math.lcm, aligned, stride))
    if windowed:
        return aligned
    return tuple(ceil_div(n, of) * of for n, of in zip(spec.size, aligned, strict=True))


def growing(spec: BackboneSpec) -> list[str]:
    """The parts whose cost per token is unbounded as the grid grows, in words; [] if linear.

    Decided from the claim in exact arithmetic, on grids of 2^30 to 2^60 tokens a side, which grow
    along all axes: a cost per
    token that converges (the effect of borders halves with every doubling) is no higher in the
    second half of these than in the first; one that grows, even like a logarithm, is.
    """
    grids = [(2**k,) * spec.axes for k in range(30, 61)]
    unbounded: dict[str, list[str]] = {}
    for stage in spec.plan():
        costs: dict[Part, list[int]] = {}
        for block, _ in stage.counts():
            mixer, channel_mixer = block.mixer, block.channel_mixer
            costs[mixer] = [mixer.macs(dim=stage.dim, grid=grid) for grid in grids]
            costs[channel_mixer] = [channel_mixer.macs(block, grid=grid) for grid in grids]
        for part, macs in costs.items():
            if _unbounded(macs, grids):
                cost = f"{part.type} costs {part.formula}"
                unbounded.setdefault(cost, []).append(str(stage.index))
    if unbounded or not _unbounded([claim(spec, grid).macs for grid in grids], grids):
        return [f"{cost} in stage {', '.join(stages)}" for cost, stages in unbounded.items()]
    return ["a part other than the mixers grows"]


def _unbounded(costs: list[int], grids: list[Sides]) -> bool:
    per_token = [Fraction(cost, tokens(grid)) for cost, grid in zip(costs, grids, strict=True)]
    middle = len(per_token) // 2
    return max(per_token[middle:]) > max(per_token[:middle]) * Fraction(10**9 + 1, 10**9)
