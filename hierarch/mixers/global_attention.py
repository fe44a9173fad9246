"""Global attention, as in ViT and DeiT: the quadratic control for the verdict on linearity."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hierarch.nn.attended import Row, one
from hierarch.nn.attention import SelfAttention
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import HeadedSpec, attention_params


@register
class GlobalAttentionSpec(HeadedSpec):
    """Multi-head self-attention of every token to every token of the grid."""

    needs_grid: ClassVar[bool] = False
    formula: ClassVar[str] = "4NC² + 2N²C"
    paper: ClassVar[str] = "Dosovitskiy et al. 2020, arXiv:2010.11929; Swin, eq. (1)"

    type: Literal["global_attention"] = "global_attention"
    """Global attention, ViT's and DeiT's: quadratic in the image's area."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""
    proj_bias: Flag = True
    """A bias in the output projection."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # Swin, eq. (1), N = hw: 4NC^2 + 2N^2C
        n = tokens(grid)
        return 4 * n * dim**2 + 2 * n**2 * dim

    def params(self, *, dim: int) -> int:
        return attention_params(dim, qkv_bias=self.qkv_bias, proj_bias=self.proj_bias)

    def build(self, dim: int) -> nn.Module:
        return GlobalAttention(
            dim,
            num_heads=self.heads(dim),
            qkv_bias=self.qkv_bias,
            proj_bias=self.proj_bias,
        )


class GlobalAttention(SelfAttention):
    """(B, H, W, C) -> (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x.flatten(1, -2)).view_as(x)

    def row(self, grid: Sides, token: int) -> Row:
        return Row((one(0), slice(None), one(token)), torch.arange(tokens(grid)))
