"""Global attention, as in ViT and DeiT: the quadratic control for the verdict on linearity."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.attended import Row, one
from hierarch.nn.attention import SelfAttention, without_key_bias
from hierarch.nn.rope import rotated
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.registry import register
from hierarch.spec.rope import RopeSpec
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
    key_bias: Flag = True
    """false: where queries and values have a bias, keys have none, as in DINOv3 and EVA."""
    proj_bias: Flag = True
    """A bias in the output projection."""
    rope: RopeSpec | None = None
    """A rotary position embedding of queries and keys; null for none."""

    @property
    def axes(self) -> int | None:
        return 2 if self.rope else None

    @property
    def takes_grid(self) -> bool:
        return self.rope is not None

    def check(self, *, dim: int) -> None:
        super().check(dim=dim)
        head_dim = dim // self.heads(dim)
        if self.rope and head_dim % 4:
            raise ValueError(
                f"heads of {head_dim} channels are not divisible by 4, for the angles of rope"
            )

    def macs(self, *, dim: int, grid: Sides) -> int:
        # Swin, eq. (1), N = hw: 4NC^2 + 2N^2C
        n = tokens(grid)
        return 4 * n * dim**2 + 2 * n**2 * dim

    def params(self, *, dim: int) -> int:
        keyless = self.qkv_bias and not self.key_bias
        all_of = attention_params(dim, qkv_bias=self.qkv_bias, proj_bias=self.proj_bias)
        return all_of - keyless * dim

    def build(self, dim: int) -> nn.Module:
        return GlobalAttention(self, dim)


class GlobalAttention(SelfAttention):
    """(B, H, W, C) -> (B, H, W, C); with `rope` and the grid (h, w) of its last tokens, also a row
    of P tokens more, (B, 1, P + h*w, C) -> the same."""

    def __init__(self, spec: GlobalAttentionSpec, dim: int) -> None:
        keyless = spec.qkv_bias and not spec.key_bias
        super().__init__(
            dim,
            num_heads=spec.heads(dim),
            qkv_bias=spec.qkv_bias and spec.key_bias,
            proj_bias=spec.proj_bias,
        )
        self.rope = spec.rope
        self.q_bias = nn.Parameter(torch.zeros(dim)) if keyless else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if keyless else None

    def reset_parameters(self) -> None:
        for bias in (self.q_bias, self.v_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x: Tensor, grid: Sides | None = None) -> Tensor:
        row = x.flatten(1, -2)
        if self.rope is None:
            return self.attend(row).view_as(x)
        qkv, on = self.split(row), tuple(x.shape[1:3]) if grid is None else grid
        q, k = rotated(qkv[:2], on, temperature=self.rope.temperature)
        return functional.linear(self.proj, functional.attention(q, k, qkv[2], ())).view_as(x)

    def added_bias(self) -> Tensor | None:
        return without_key_bias(self.q_bias, self.v_bias)

    def row(self, grid: Sides, token: int) -> Row:
        return Row((one(0), slice(None), one(token)), torch.arange(tokens(grid)))
