"""The spec of the classifier head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from hierarch.spec.base import Flag, Rate, Ratio, Spec
from hierarch.spec.grid import Sides
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
    pool: Literal["mean", "class_token"] = "mean"
    """What is classified: the mean over the grid's tokens, or the class token, and the distillation
    token if there is one."""
    pool_first: Flag = False
    """Whether the mean is taken before the norm (ConvNeXt, MetaFormer) or after it."""
    norm: Norm | None = None
    """The norm; by default the network's."""
    hidden_ratio: Ratio | None = None
    """Width of a hidden layer before the classifier, as a multiple of dim, as in MetaFormer; an
    activation and a norm follow it. null for none."""
    hidden_norm: Norm | None = None
    """The hidden layer's norm; by default the head's."""
    activation: Activation = default("activation", "gelu")
    """The hidden layer's activation."""

    def to_data(self) -> Any:
        # said even where it is the default: `head: {}` says nothing to a reader
        return {"num_classes": self.num_classes, **super().to_data()}

    def hidden_dim(self, dim: int) -> int | None:
        """Width of the hidden layer; None if there is none."""
        return int(dim * self.hidden_ratio) if self.hidden_ratio and self.num_classes else None

    def macs(self, *, dim: int, grid: Sides, norm: NormSpec, classifiers: int = 1) -> int:
        """The claim for the last stage's grid; `norm` is the network's."""
        norm, classes = self.norm or norm, classifiers * self.num_classes
        total = norm.macs(dim=dim, grid=(1, classifiers) if self.pool_first else grid)
        if hidden := self.hidden_dim(dim):
            normed = (self.hidden_norm or norm).macs(dim=hidden, grid=(1, 1))
            return total + dim * hidden + normed + hidden * classes
        return total + dim * classes

    def params(self, *, dim: int, norm: NormSpec, classifiers: int = 1) -> int:
        """The claim: parameters; `norm` is the network's."""
        norm, hidden = self.norm or norm, self.hidden_dim(dim)
        total = norm.params(dim=dim)
        if hidden:
            total += linear_params(dim, hidden) + self.activation.params()
            total += (self.hidden_norm or norm).params(dim=hidden)
        classifier = linear_params(hidden or dim, self.num_classes) if self.num_classes else 0
        return total + classifiers * classifier
