"""Budgets: what a network may cost, by the claims of its parts, so that two networks can be given
the same one. A budget is a sum over stem, stages and head, so that a search works out each once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim, head_macs, stage_claim, stem_macs
from hierarch.spec.grid import Sides
from hierarch.spec.params import head_params, stage_params, stem_params
from hierarch.spec.plan import StagePlan

BudgetName = Literal["macs", "params", "latency"]


class Budget(Protocol):
    """A cost of the networks that have one spec's stem, head and grids, at any width and depth."""

    name: ClassVar[BudgetName]

    @property
    def size(self) -> Sides | None:
        """The image's, in pixels, where the cost depends on it."""

    def stem(self, dim: int) -> int:
        """Of the stem and the position embedding, `dim` wide."""

    def stage(self, stage: StagePlan) -> int:
        """Of a stage, with its downsampling."""

    def head(self, last: StagePlan) -> int:
        """Of the head, after the last stage."""


@dataclass(frozen=True)
class Macs:
    """MACs for one image of `size` pixels."""

    name: ClassVar[BudgetName] = "macs"
    spec: BackboneSpec
    size: Sides
    grids: tuple[Sides, ...]
    """What comes into each stage, and what leaves the last."""

    @classmethod
    def of(cls, spec: BackboneSpec, size: Sides) -> Macs:
        stages = claim(spec, size).stages
        return cls(spec, size, (spec.tokens_of(size), *(stage.grid for stage in stages)))

    def stem(self, dim: int) -> int:
        return stem_macs(self.spec, dim=dim, size=self.size)

    def stage(self, stage: StagePlan) -> int:
        return stage_claim(stage, self.grids[stage.index]).macs

    def head(self, last: StagePlan) -> int:
        return head_macs(self.spec, last, grid=self.grids[-1])


@dataclass(frozen=True)
class Params:
    """Parameters."""

    name: ClassVar[BudgetName] = "params"
    spec: BackboneSpec
    size: None = None

    def stem(self, dim: int) -> int:
        return stem_params(self.spec, dim=dim)

    def stage(self, stage: StagePlan) -> int:
        return stage_params(stage)

    def head(self, last: StagePlan) -> int:
        return head_params(self.spec, last)


def spent(budget: Budget, plan: tuple[StagePlan, ...]) -> int:
    """What the network of a plan costs."""
    stages = sum(map(budget.stage, plan))
    return budget.stem(plan[0].in_dim) + stages + budget.head(plan[-1])
