"""Swin-MLP as published: window mixing by a grouped 1x1 convolution.

Liu et al. 2021, arXiv:2103.14030, appendix A3.3 (Swin-Mixer). The same network as the spec
swin_mixer_tiny_d24, as the reference of its timing: nothing here is tuned.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DROP_PATH = 0.2
"""As the spec has it: the rate of the last block; the first has none."""


class DropPath(nn.Module):
    """Leaves a residual branch out, image by image."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep).div_(keep)


class WindowMlp(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): each head mixes its window's positions, zeros around them."""

    def __init__(self, num_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__()
        self.num_heads, self.window_size, self.shift_size = num_heads, window_size, shift_size
        channels = num_heads * window_size**2
        self.spatial_mlp = nn.Conv1d(channels, channels, kernel_size=1, groups=num_heads)

    def forward(self, x: Tensor) -> Tensor:
        size, heads = self.window_size, self.num_heads
        before = size - self.shift_size if self.shift_size else 0
        b, height, width, c = x.shape
        x = F.pad(x, (0, 0, before, self.shift_size, before, self.shift_size))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        x = x.view(b, rows, size, columns, size, c).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, size * size, heads, c // heads).transpose(1, 2)
        x = self.spatial_mlp(x.reshape(-1, heads * size * size, c // heads))
        x = x.view(-1, heads, size * size, c // heads).transpose(1, 2)
        x = x.reshape(b, rows, columns, size, size, c).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, rows * size, columns * size, c)
        return x[:, before : before + height, before : before + width]


class Block(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)"""

    def __init__(self, dim: int, mixer: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.mixer = nn.LayerNorm(dim), mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """(B, H, W, C) -> (B, H/2, W/2, 2C)"""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinMlp(nn.Module):
    """(B, 3, H, W) -> (B, num_classes); H and W are multiples of 32 * window_size, or as small as
    makes the last stage one window."""

    def __init__(
        self, *, dim: int, depths: tuple[int, ...], head_dim: int, window_size: int, side: int
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, kernel_size=4, stride=4)
        self.stem_norm = nn.LayerNorm(dim)
        rates = iter(torch.linspace(0, DROP_PATH, sum(depths), device="cpu").tolist())
        layers: list[nn.Module] = []
        grid = side // 4
        for stage, depth in enumerate(depths):
            if stage:
                layers.append(PatchMerging(dim))
                dim, grid = 2 * dim, grid // 2
            for index in range(depth):
                # one window holds all of a small grid, and is not shifted
                shift = window_size // 2 if index % 2 and grid > window_size else 0
                mixer = WindowMlp(dim // head_dim, min(window_size, grid), shift)
                layers.append(Block(dim, mixer, next(rates)))
        self.layers = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 1000)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(images).permute(0, 2, 3, 1))
        return self.head(self.norm(self.layers(x)).mean((1, 2)))


def swin_mlp_tiny_c24() -> nn.Module:
    """Swin-Mixer-T/D24 for images of 256 pixels a side."""
    return SwinMlp(dim=96, depths=(2, 2, 6, 2), head_dim=24, window_size=8, side=256)
