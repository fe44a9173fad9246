"""Layer normalization over channels (Ba et al. 2016, arXiv:1607.06450)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict
from torch import nn

from hierarch.nn.init import layer_norm
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import NormSpec
from hierarch.spec.registry import register


@register
class LayerNormSpec(NormSpec):
    """Layer normalization over each token's channels, with a learned scale."""

    formula: ClassVar[str] = "5NC"
    paper: ClassVar[str] = "Ba et al. 2016, arXiv:1607.06450, eq. (4)"
    per_token: ClassVar[bool] = True

    type: Literal["layer_norm"] = "layer_norm"
    """Layer normalization."""
    eps: Annotated[float, Strict(), Field(gt=0, le=1, allow_inf_nan=False)] = 1e-5
    """Added to the variance."""
    bias: Flag = True
    """A learned bias in addition to the learned scale."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # fvcore's estimate: five operations an element
        return 5 * tokens(grid) * dim

    def params(self, *, dim: int) -> int:
        return (1 + self.bias) * dim

    def build(self, dim: int, *, init: float = 1) -> nn.Module:
        return layer_norm(dim, init=init, eps=self.eps, bias=self.bias)
