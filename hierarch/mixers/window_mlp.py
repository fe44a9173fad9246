"""The shifted-window MLP of Swin-Mixer (the published code's `swin_mlp.py`).

Each head has one weight matrix over the positions of a window, shared by the channels of the head.
The published code computes this as a grouped 1x1 convolution over heads * M² channels; the weight
has the shape of that convolution's.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from hierarch.nn.cut import Cut, FrontPadded, Runs, product
from hierarch.nn.padding import contiguous, symbolic_min
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec.grid import Sides, SmallMap, ceil_div, fit, tokens
from hierarch.spec.parts import linear_params
from hierarch.spec.registry import register
from hierarch.spec.windows import WindowedSpec


@register
class WindowMlpSpec(WindowedSpec):
    """A linear layer per head over the positions of a window, regular or shifted.

    A shift pads with zeros, without a cyclic wrap, since windows of an MLP cannot be masked.
    """

    formula: ClassVar[str] = "M²N'C; N' = N padded to windows, M = window_size"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.14030, appendix A3.3, Swin-Mixer"

    type: Literal["window_mlp"] = "window_mlp"
    """Shifted-window MLP, Swin-Mixer's."""

    def slots(self, grid: Sides) -> int:
        window, shift = self.fit(grid)
        axes = zip(grid, window, shift, strict=True)
        return math.prod(ceil_div(n + (w - s if s else 0), w) * w for n, w, s in axes)

    def macs(self, *, dim: int, grid: Sides) -> int:
        # each of the N' outputs of a channel sums over its window's M^2 positions
        window, _ = self.fit(grid)
        return tokens(window) * self.slots(grid) * dim

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        window, _ = self.fit(grid)
        return tokens(window) * (self.slots(grid) - tokens(grid)) * dim

    def params(self, *, dim: int) -> int:
        # each head: from the M^2 positions of a window to as many
        positions = tokens(self.window)
        return self.heads(dim) * linear_params(positions, positions)

    def build(self, dim: int) -> nn.Module:
        return WindowMlp(
            num_heads=self.heads(dim),
            window_size=self.window,
            shift_size=self.shift,
            small_map=self.small_map,
        )


class WindowMlp(WindowMixer):
    """(B, H, W, C) -> (B, H, W, C): mixes the positions of each window, head by head."""

    def __init__(
        self, *, num_heads: int, window_size: Sides, shift_size: Sides, small_map: SmallMap
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.small_map = small_map
        # zeros before the image: the first window has only its last `shift` rows in the image
        self.lead = tuple(w - s if s else 0 for w, s in zip(window_size, shift_size, strict=True))
        size = tokens(window_size)
        self.weight = nn.Parameter(torch.empty(num_heads * size, size, 1))
        self.bias = nn.Parameter(torch.empty(num_heads * size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def cut(self, grid: Sides) -> Cut:
        window, lead = fit(grid, self.window_size, self.lead, self.small_map, minimum=symbolic_min)
        return Cut(tuple(map(FrontPadded, grid, window, lead)))

    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        weight, bias = self.group_linear(cut.window)
        split = rearrange(windows, "n s (heads c) -> heads s n c", heads=self.num_heads)
        columns = rearrange(contiguous(split), "heads s n c -> heads s (n c)")
        mixed = torch.baddbmm(bias, weight, columns)
        split = rearrange(mixed, "heads s (n c) -> n s heads c", n=windows.shape[0])
        return rearrange(contiguous(split), "n s heads c -> n s (heads c)")

    def group_linear(self, window: Sides) -> tuple[Tensor, Tensor]:
        """Weight (heads, N, N) and bias (heads, N, 1) for a window of at most the layer's size."""
        heads, size, whole = self.num_heads, product(window), self.window_size
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if self.small_map.startswith("clamp"):
            inside = [slice(side) for side in window]
            weight = contiguous(weight.view(heads, *whole, *whole)[:, *inside, *inside])
            bias = contiguous(bias.view(heads, *whole)[:, *inside])
        return weight.reshape(heads, size, size), bias.reshape(heads, size, 1)

    def extra_repr(self) -> str:
        return f"window_size={self.window_size}, num_heads={self.num_heads}, lead={self.lead}"
