"""Group normalization over the whole map (Wu & He 2018, arXiv:1803.08494)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import NormSpec
from hierarch.spec.registry import register


@register
class GroupNormSpec(NormSpec):
    """Normalization over all tokens and channels of an image, PoolFormer's."""

    formula: ClassVar[str] = "5NC"
    paper: ClassVar[str] = "Wu & He 2018, arXiv:1803.08494, eq. (7), with one group"

    type: Literal["group_norm"] = "group_norm"
    """Group normalization, with one group."""
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
        return GroupNorm(dim, init=init, eps=self.eps, bias=self.bias)


class GroupNorm(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, *, init: float, eps: float, bias: bool) -> None:
        super().__init__()
        self.init = init
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.init)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        images = rearrange(x, "b h w c -> b c h w")
        normed = F.group_norm(images, 1, self.weight, self.bias, self.eps)
        return rearrange(normed, "b c h w -> b h w c")

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}"
