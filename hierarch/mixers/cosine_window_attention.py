"""Swin V2's shifted-window attention (Liu et al. 2022, arXiv:2111.09883, section 3)."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.attention import relative_position_index, without_key_bias
from hierarch.nn.cut import Cut, Runs, shifted_cut
from hierarch.nn.padding import symbolic_min
from hierarch.nn.window_mixer import MaskedWindowMixer
from hierarch.spec.base import Flag, Side
from hierarch.spec.grid import AXES, Sides, fit, per_axis, slots, tokens
from hierarch.spec.parts import linear_params
from hierarch.spec.registry import register
from hierarch.spec.windows import WindowedSpec, attention_params

HIDDEN = 512
"""Hidden width of the MLP that computes the position bias, as published."""
MAX_SCALE = 100
"""Upper bound of the learned inverse temperature, as published."""
MAX_BIAS = 16
"""Upper bound of the position bias, as published: 16 times a sigmoid."""


@register
class CosineWindowAttentionSpec(WindowedSpec):
    """Attention in windows by the cosine of query and key. An MLP computes the position bias from
    log-spaced offsets, so it applies to windows of any size."""

    formula: ClassVar[str] = (
        "4N'C² + 2M²N'C + (2M-1)²(2 + heads)512; N' = N padded to windows, M = window_size"
    )
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2111.09883, eq. (2)-(4)"
    no_weight_decay: ClassVar[tuple[str, ...]] = (
        "logit_scale",
        "cpb_mlp.0.weight",
        "cpb_mlp.0.bias",
        "cpb_mlp.2.weight",
    )

    type: Literal["cosine_window_attention"] = "cosine_window_attention"
    """Shifted-window attention, Swin Transformer V2's."""
    pretrained_window_size: Annotated[int | Sides, Side(1, 64, axes=AXES)] | None = None
    """The window that the position bias was trained with, as window_size: offsets are scaled by
    its size. By default the window itself."""
    qkv_bias: Flag = True
    """A bias on queries and values; keys have none, as published."""
    shift_mask: Flag = True
    """A mask in shifted windows, as published: tokens from opposite edges of the map, which only
    the cyclic shift joined, do not attend to each other. false: they do."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return self._attention(dim, grid, slots(self.fit(grid)[0], grid)) + self._bias(dim, grid)

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        padding = slots(self.fit(grid)[0], grid) - tokens(grid)
        return self._attention(dim, grid, padding)

    def _attention(self, dim: int, grid: Sides, count: int) -> int:
        # Swin, eq. (2): M^2 = tokens of a window, 4NC^2 + 2M^2NC
        window, _ = self.fit(grid)
        return count * (4 * dim**2 + 2 * tokens(window) * dim)

    def _bias(self, dim: int, grid: Sides) -> int:
        # two linear layers, axes -> 512 -> heads, for every offset of two tokens in a window
        window, _ = self.fit(grid)
        offsets = math.prod(2 * side - 1 for side in window)
        return offsets * HIDDEN * (len(window) + self.heads(dim))

    def params(self, *, dim: int) -> int:
        # keys have no bias; a temperature per head; the network that makes the position bias
        heads = self.heads(dim)
        layers = attention_params(dim, qkv_bias=False) + 2 * dim * self.qkv_bias
        bias = linear_params(len(self.window), HIDDEN) + linear_params(HIDDEN, heads, bias=False)
        return layers + heads + bias

    def build(self, dim: int) -> nn.Module:
        return CosineWindowAttention(self, dim)


class CosineWindowAttention(MaskedWindowMixer):
    """(B, H, W, C) -> (B, H, W, C): attention in each window, regular or shifted."""

    def __init__(self, spec: CosineWindowAttentionSpec, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.num_heads = heads = spec.heads(dim)
        self.qkv = init.linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.empty(dim)) if spec.qkv_bias else None
        self.v_bias = nn.Parameter(torch.empty(dim)) if spec.qkv_bias else None
        self.logit_scale = nn.Parameter(torch.empty(heads, 1, 1))
        self.cpb_mlp = nn.Sequential(
            init.linear(len(spec.window), HIDDEN), nn.ReLU(), init.linear(HIDDEN, heads, bias=False)
        )
        self.proj = init.linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As published: cosines are scaled by 10, and biases are 0."""
        nn.init.constant_(self.logit_scale, math.log(10))
        for bias in (self.q_bias, self.v_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def cut(self, grid: Sides) -> Cut:
        spec = self.spec
        window, shift = fit(grid, spec.window, spec.shift, spec.small_map, minimum=symbolic_min)
        return shifted_cut(grid, window, shift, masked=spec.shift_mask)

    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        masks = self.masks(cut, windows)
        bias = without_key_bias(self.q_bias, self.v_bias)
        qkv = functional.linear(self.qkv, windows, bias)
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        # eq. (2): the cosine over a temperature, learned as the logarithm of its inverse
        scale = self.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()
        q, k = F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1)
        added = [(count, masks[kind]) for kind, count in runs]
        mixed = functional.attention(q.to(v.dtype), k.to(v.dtype), v, added, 1.0)
        return functional.linear(self.proj, mixed)

    def bias(self, window: Sides) -> Tensor:
        """(1, heads, N, N): the continuous position bias of a window, from 0 to 16."""
        like = self.logit_scale
        unit = per_axis(self.spec.pretrained_window_size or window)
        offsets = functional.constant(log_offsets, window, unit, device=like.device)
        table = self.cpb_mlp(offsets.to(like.dtype))
        index = functional.constant(relative_position_index, window, device=like.device)
        bias = MAX_BIAS * torch.sigmoid(table[index])
        return rearrange(bias, "n m heads -> 1 heads n m").contiguous()

    def bias_parameters(self) -> list[nn.Parameter]:
        return list(self.cpb_mlp.parameters())

    def extra_repr(self) -> str:
        spec = self.spec
        return f"window_size={spec.window_size}, shift_size={spec.shift_size}"


def log_offsets(window: Sides, unit: Sides, *, device: torch.device | str = "cpu") -> Tensor:
    """Eq. (4): the log-spaced offsets of two tokens in a window, ((2h-1)(2w-1), 2), as many
    numbers as there are axes.

    `unit` is the window that the position bias was trained with.
    """
    axes = []
    for side, learned in zip(window, unit, strict=True):
        edge = -symbolic_min(1 - learned, -1)  # max(learned - 1, 1)
        # as published: scaled to 8 at the window's edge, then log2(1 + x) / log2(8)
        spread = torch.arange(1 - side, side, dtype=torch.float32, device=device) * 8 / edge
        axes.append(spread.sign() * torch.log2(spread.abs() + 1) / math.log2(8))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
