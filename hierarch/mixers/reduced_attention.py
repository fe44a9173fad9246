"""Attention to a reduced map of keys and values (PVT v2, Wang et al. 2021, arXiv:2106.13797)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, Strict, model_validator
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.convolution import strided_conv
from hierarch.nn.layers import build_norm
from hierarch.norms.layer_norm import LayerNormSpec
from hierarch.spec.base import Flag, fault
from hierarch.spec.convolution import Length, strided
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import linear_params
from hierarch.spec.registry import register
from hierarch.spec.windows import HeadedSpec

_NORM = LayerNormSpec()


@register
class ReducedAttentionSpec(HeadedSpec):
    """Every token attends to a smaller map, made by a convolution or by averages of regions.

    The convolution ignores remaining tokens that its kernel does not reach, as PyTorch's does.
    """

    formula: ClassVar[str] = (
        "2NC² + 2MC² + 2NMC + R²MC² + 5MC; R = reduction, M = N/R². With pool_size P: R = 1, "
        "M = P², and NC for the averages"
    )
    paper: ClassVar[str] = "Wang et al. 2021, arXiv:2106.13797, section 3.1; arXiv:2102.12122"

    type: Literal["reduced_attention"] = "reduced_attention"
    """Attention to reduced keys and values, PVT's, and Twins' global one."""
    reduction: Length = 1
    """Tokens along a side of a square that becomes one key; 1 for no reduction, nor a norm."""
    pool_size: Annotated[int, Strict(), Field(ge=1, le=64)] | None = None
    """Keys along a side of a map that averages regions, whatever the grid; then the cost is
    linear. A linear layer, a norm and a GELU follow. In place of `reduction`."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""

    @model_validator(mode="after")
    def _one_reduction(self) -> Self:
        if self.pool_size and self.reduction > 1:
            message = "is for attention without pool_size; leave out one of the two"
            raise fault(type(self).__name__, (("reduction",), message, self.reduction))
        return self

    @property
    def reduces(self) -> bool:
        return self.reduction > 1 or self.pool_size is not None

    def keys(self, grid: Sides) -> Sides:
        """The grid of keys of a grid of queries."""
        if self.pool_size:
            return self.pool_size, self.pool_size
        return strided(grid, kernel_size=self.reduction, stride=self.reduction, padding=0)

    def macs(self, *, dim: int, grid: Sides) -> int:
        n, m = tokens(grid), tokens(self.keys(grid))
        attention = 2 * n * dim**2 + 2 * m * dim**2 + 2 * n * m * dim
        pooling = n * dim if self.pool_size else 0
        norm = _NORM.macs(dim=dim, grid=self.keys(grid))
        reducing = self.reduction**2 * m * dim**2 + norm if self.reduces else 0
        return attention + pooling + reducing

    def params(self, *, dim: int) -> int:
        qkv = linear_params(dim, 3 * dim, bias=self.qkv_bias)
        reducing = linear_params(self.reduction**2 * dim, dim) + _NORM.params(dim=dim)
        return qkv + linear_params(dim, dim) + self.reduces * reducing

    def build(self, dim: int) -> nn.Module:
        return ReducedAttention(self, dim)


class ReducedAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: ReducedAttentionSpec, dim: int) -> None:
        super().__init__()
        self.num_heads = spec.heads(dim)
        self.reduction = spec.reduction
        self.pool_size = spec.pool_size
        self.q = init.linear(dim, dim, bias=spec.qkv_bias)
        self.kv = init.linear(dim, 2 * dim, bias=spec.qkv_bias)
        self.proj = init.linear(dim, dim)
        self.sr: nn.Module | None = None
        if spec.reduces:
            self.sr = init.conv2d(dim, dim, spec.reduction, stride=spec.reduction)
            self.norm = build_norm(_NORM, dim)

    def reduce(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, h, w, C): what keys and values are made of."""
        if self.sr is None:
            return x
        if self.pool_size:
            averages = F.adaptive_avg_pool2d(rearrange(x, "b h w c -> b c h w"), self.pool_size)
            x = rearrange(averages, "b c h w -> b h w c")
        reduced: Tensor = self.norm(strided_conv(self.sr, x, kernel_size=self.reduction, padding=0))
        return F.gelu(reduced) if self.pool_size else reduced

    def forward(self, x: Tensor) -> Tensor:
        q = self._heads(functional.linear(self.q, x))
        k, v = (self._heads(y) for y in functional.linear(self.kv, self.reduce(x)).chunk(2, -1))
        out: Tensor = functional.linear(self.proj, functional.attention(q, k, v, ()))
        return out.view(x.shape)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, heads, h * w, d)."""
        b, h, w, dim = x.shape
        heads = x.reshape(b, h * w, self.num_heads, dim // self.num_heads)
        return heads.transpose(1, 2)
