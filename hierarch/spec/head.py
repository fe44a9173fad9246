"""The spec of the classifier head."""

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
    """A norm, the mean over the tokens of the last grid, and a classifier."""

    num_classes: Annotated[int, Strict(), Field(ge=0, le=1_000_000)] = 1000
    """Number of classes; 0 to return the mean features, as in timm."""
    drop_rate: Rate = 0.0
    """Dropout before the classifier."""
    pool_first: Flag = False
    """Whether to take the mean before the norm, as ConvNeXt and MetaFormer do, or after it."""
    norm: Norm | None = None
    """The norm; by default the network's."""
    hidden_ratio: Ratio | None = None
    """Width of a hidden layer before the classifier, as a multiple of dim, as in MetaFormer; an
    activation and a norm follow it. null for none."""
    activation: Activation = default("activation", "gelu")
    """The hidden layer's activation."""

    def hidden_dim(self, dim: int) -> int | None:
        """Width of the hidden layer; None if there is none."""
        return int(dim * self.hidden_ratio) if self.hidden_ratio and self.num_classes else None

    def macs(self, *, dim: int, grid: Pair, norm: NormSpec) -> int:
        """The claim for the last stage's grid; `norm` is the network's."""
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
