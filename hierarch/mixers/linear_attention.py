"""Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236): a kernel instead of softmax.

An attention weight is a product φ(q)·φ(k), so the sums over all keys are the same for every query,
and are computed once.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hierarch.nn.attention import SelfAttention
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import HeadedSpec, attention_params


@register
class LinearAttentionSpec(HeadedSpec):
    """Multi-head self-attention of all tokens, at a cost that is linear in their number."""

    needs_grid: ClassVar[bool] = False
    formula: ClassVar[str] = "4NC² + 2NCD + NC; D = channels per head"
    paper: ClassVar[str] = "Katharopoulos et al. 2020, arXiv:2006.16236, eq. (4) to (6)"

    type: Literal["linear_attention"] = "linear_attention"
    """Linear attention with φ(x) = elu(x) + 1: global, and linear in the image's area."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # q, k, v and the projection: 4NC^2. Σ φ(k)vᵀ, D^2 a head and token, and φ(q) times it:
        # NCD each. The normalizer φ(q)·Σφ(k): NC; its sum is additions alone.
        n, head_dim = tokens(grid), dim // self.heads(dim)
        return n * dim * (4 * dim + 2 * head_dim + 1)

    def params(self, *, dim: int) -> int:
        return attention_params(dim, qkv_bias=self.qkv_bias)

    def build(self, dim: int) -> nn.Module:
        return LinearAttention(dim, num_heads=self.heads(dim), qkv_bias=self.qkv_bias)


class LinearAttention(SelfAttention):
    """(B, H, W, C) -> (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, -2)
        q, k, v = self.split(tokens)
        # eq. (5), with means over the tokens instead of sums, which would overflow in float16; the
        # ratio is the same
        q, k = positive(q), positive(k) / tokens.shape[1]
        values = k.transpose(-2, -1) @ v
        weights = k.sum(-2).unsqueeze(-1)
        return self.join((q @ values) / (q @ weights)).view_as(x)


def positive(x: Tensor) -> Tensor:
    """elu(x) + 1, eq. (7), in a form that never rounds to 0, where a query could get 0/0."""
    above = x.relu()
    lowest = math.log(torch.finfo(x.dtype).tiny)
    return (x - above).clamp(min=lowest).exp() + above
