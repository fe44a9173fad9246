"""Focal modulation (FocalNet, Yang et al. 2022, arXiv:2203.11926, section 3).

Depthwise convolutions gather the context of each token, one after the other and each with a larger
kernel; gates say how much of each level a token takes; the sum modulates the token's query.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.mixers.depthwise_conv import DepthwiseConv
from hierarch.nn import functional, init
from hierarch.nn.layers import build_norm
from hierarch.spec.base import Flag, Kernel
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.head import Norm
from hierarch.spec.parts import MixerSpec, linear_params
from hierarch.spec.registry import register


@register
class FocalModulationSpec(MixerSpec):
    """A query per token times a sum of its contexts: near, wider, and of the whole map."""

    formula: ClassVar[str] = (
        "4NC² + (L+1)NC + ΣKₗ²NC + the norm's; L = focal_level, Kₗ = focal_window + 2l, l < L"
    )
    paper: ClassVar[str] = "Yang et al. 2022, arXiv:2203.11926, section 3"

    type: Literal["focal_modulation"] = "focal_modulation"
    """Focal modulation, FocalNet's."""
    focal_window: Kernel = 3
    """Tokens along a side of the first level's kernel; odd. Each further level's has 2 more."""
    focal_level: Annotated[int, Strict(), Field(ge=1, le=16)] = 3
    """Levels of context, without that of the whole map."""
    normalize_modulator: Flag = False
    """The mean of the levels instead of their sum."""
    norm: Norm | None = None
    """Applied before the output projection, in the largest published networks; null for none."""

    def kernel_sizes(self) -> list[int]:
        return [self.focal_window + 2 * level for level in range(self.focal_level)]

    def macs(self, *, dim: int, grid: Sides) -> int:
        # q, context and L+1 gates of each token: NC(2C + L + 1); the modulator's and the output's
        # projection: NC² each. The mean over the map is additions alone.
        kernels = sum(k**2 for k in self.kernel_sizes())
        norm = self.norm.macs(dim=dim, grid=grid) if self.norm else 0
        return tokens(grid) * dim * (4 * dim + self.focal_level + 1 + kernels) + norm

    def params(self, *, dim: int) -> int:
        layers = linear_params(dim, 2 * dim + self.focal_level + 1) + 2 * linear_params(dim, dim)
        norm = self.norm.params(dim=dim) if self.norm else 0
        return layers + sum(k**2 for k in self.kernel_sizes()) * dim + norm

    def build(self, dim: int) -> nn.Module:
        return FocalModulation(self, dim)


class FocalModulation(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: FocalModulationSpec, dim: int) -> None:
        super().__init__()
        self.levels = spec.focal_level + 1
        self.divisor = self.levels if spec.normalize_modulator else 1
        self.f = init.linear(dim, 2 * dim + self.levels)
        self.focal_layers = nn.ModuleList(
            DepthwiseConv(dim, kernel_size=kernel_size, bias=False)
            for kernel_size in spec.kernel_sizes()
        )
        self.h = init.linear(dim, dim)
        self.norm = build_norm(spec.norm, dim) if spec.norm else nn.Identity()
        self.proj = init.linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        sizes = [dim, dim, *[1] * self.levels]
        q, context, *gates = functional.linear(self.f, x).split_with_sizes(sizes, dim=-1)
        modulator = torch.zeros_like(q)
        for layer, gate in zip(self.focal_layers, gates[:-1], strict=True):
            context = F.gelu(layer(context))
            modulator = modulator + context * (gate / self.divisor)
        everywhere = F.gelu(context.mean((1, 2), keepdim=True))
        modulator = modulator + everywhere * (gates[-1] / self.divisor)
        modulated = self.norm(q * functional.linear(self.h, modulator))
        return functional.linear(self.proj, modulated)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"
