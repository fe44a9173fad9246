"""Attention among channels (XCiT, El-Nouby et al. 2021, arXiv:2106.09681; DaViT, Ding et al. 2022,
arXiv:2204.03645): each channel of a head attends to the head's channels.

A channel's query is its values at all the tokens of the map, so the map of weights has the size of
a head, whatever the size of the image.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.nn.attention import SelfAttention
from hierarch.spec.base import Flag
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.registry import register
from hierarch.spec.windows import HeadedSpec, attention_params

Scale = Literal["head_dim", "tokens", "cosine"]


@register
class ChannelAttentionSpec(HeadedSpec):
    """Multi-head self-attention of every channel to the channels of its head, over all tokens."""

    formula: ClassVar[str] = "4NC² + 2NCD; D = channels per head"
    paper: ClassVar[str] = (
        "Ding et al. 2022, arXiv:2204.03645, section 3; El-Nouby et al. 2021, arXiv:2106.09681, "
        "section 3.2"
    )
    no_weight_decay: ClassVar[tuple[str, ...]] = ("temperature",)

    type: Literal["channel_attention"] = "channel_attention"
    """Attention among channels, DaViT's, and XCiT's cross-covariance attention."""
    qkv_bias: Flag = True
    """A bias on queries, keys and values."""
    scale: Scale = "head_dim"
    """What the product of a query and a key is divided by. head_dim: the root of the number of
    channels of a head, as in DaViT. tokens: the root of the number of tokens, as in the DaViT of
    Florence-2. cosine: the lengths of both, times a learned temperature per head, as in XCiT."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # q, k, v and the projection: 4NC^2. qᵀk and the product with v: D^2 a head and token each
        return tokens(grid) * dim * (4 * dim + 2 * (dim // self.heads(dim)))

    def params(self, *, dim: int) -> int:
        temperatures = self.heads(dim) if self.scale == "cosine" else 0
        return attention_params(dim, qkv_bias=self.qkv_bias) + temperatures

    def build(self, dim: int) -> nn.Module:
        return ChannelAttention(self, dim)


class ChannelAttention(SelfAttention):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: ChannelAttentionSpec, dim: int) -> None:
        super().__init__(dim, num_heads=spec.heads(dim), qkv_bias=spec.qkv_bias)
        self.scale = spec.scale
        self.temperature: nn.Parameter | None = None
        if spec.scale == "cosine":
            self.temperature = nn.Parameter(torch.empty(self.num_heads, 1, 1))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.temperature is not None:
            nn.init.ones_(self.temperature)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x.flatten(1, 2))
        if self.temperature is not None:
            q, k = F.normalize(q, dim=-2) * self.temperature, F.normalize(k, dim=-2)
        else:
            q = q * q.shape[-1 if self.scale == "head_dim" else -2] ** -0.5
        weights = (q.transpose(-2, -1) @ k).softmax(-1)
        return self.join(v @ weights.transpose(-2, -1)).view_as(x)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, scale={self.scale}"
