"""The head: what a network ends in where it classifies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from hierarch.spec.base import Flag, Rate, Ratio, Spec
from hierarch.spec.grid import Pair
from hierarch.spec.parts import ActivationSpec, NormSpec, linear_params
from hierarch.spec.registry import PartOf, default

Norm = Annotated[NormSpec, PartOf("norm")]
Activation = Annotated[ActivationSpec, PartOf("activation")]


class HeadSpec(Spec):
    """A norm and the mean over the last grid's tokens, then a classifier."""

    num_classes: Annotated[int, Strict(), Field(ge=0, le=1_000_000)] = 1000
    """Classes; 0 for the mean features themselves, as in timm."""
    drop_rate: Rate = 0.0
    """Dropout before the classifier."""
    pool_first: Flag = False
    """The mean before the norm, as in ConvNeXt and MetaFormer, rather than after it."""
    norm: Norm | None = None
    """The norm; by default the network's."""
    hidden_ratio: Ratio | None = None
    """Width of a hidden layer before the classifier, over dim, as in MetaFormer; it ends in an
    activation and a norm. null for none."""
    activation: Activation = default("activation", "gelu")
    """The hidden layer's activation."""

    def hidden_dim(self, dim: int) -> int | None:
        """The hidden layer's width, where there is one."""
        return int(dim * self.hidden_ratio) if self.hidden_ratio and self.num_classes else None

    def macs(self, *, dim: int, grid: Pair, norm: NormSpec) -> int:
        """The claim for a last grid; `norm` is the network's."""
        norm = self.norm or norm
        total = norm.macs(dim=dim, grid=(1, 1) if self.pool_first else grid)
        if hidden := self.hidden_dim(dim):
            return (
                total
                + dim * hidden
                + norm.macs(dim=hidden, grid=(1, 1))
                + hidden * self.num_classes
            )
        return total + dim * self.num_classes

    def params(self, *, dim: int, norm: NormSpec) -> int:
        """The claim: parameters; `norm` is the network's."""
        norm, hidden = self.norm or norm, self.hidden_dim(dim)
        total = norm.params(dim=dim)
        if hidden:
            total += linear_params(dim, hidden) + self.activation.params() + norm.params(dim=hidden)
        return total + (linear_params(hidden or dim, self.num_classes) if self.num_classes else 0)
