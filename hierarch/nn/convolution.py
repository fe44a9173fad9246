"""Convolutions on grids of tokens."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.nn.padding import pad, symbolic_min
from hierarch.spec.convolution import reach
from hierarch.spec.grid import Sides, ceil_div

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""torch's convolution on each number of axes."""


def convolution(in_dim: int, dim: int, *, kernel_size: Sides, **options: Any) -> nn.Module:
    """A convolution on as many axes as its kernel has.

    >>> convolution(3, 8, kernel_size=(2, 4, 4), stride=(2, 4, 4))
    Conv3d(3, 8, kernel_size=(2, 4, 4), stride=(2, 4, 4))
    """
    return CONVOLUTIONS[len(kernel_size)](in_dim, dim, kernel_size=kernel_size, **options)


def strided_conv(conv: nn.Module, x: Tensor, *, kernel_size: int, padding: int) -> Tensor:
    """(B, H, W, in_dim) -> (B, h, w, dim): a convolution, of which a rest of the grid that its
    kernel does not reach is left out. A map smaller than the kernel is padded to it."""
    _, h, w, _ = x.shape
    if type(h) is int and type(w) is int:  # torch.export refuses a map smaller than the kernel
        x = pad(x, [reach(side, kernel_size=kernel_size, padding=padding) for side in (h, w)])
    images: Tensor = conv(rearrange(x, "b h w c -> b c h w"))
    return rearrange(images, "b c h w -> b h w c")


def same_padded(x: Tensor, *, kernel_size: int, stride: int) -> Tensor:
    """(B, H, W, C) -> the same with zeros around it, of which a convolution without padding makes
    ceil(N / S) tokens on each axis: TensorFlow's "same", which has an odd zero at the end.

    >>> import torch
    >>> [same_padded(torch.ones(1, n, n, 1), kernel_size=3, stride=2).shape[1] for n in (6, 7)]
    [7, 9]
    """
    _, h, w, _ = x.shape
    amounts = []
    for n in (w, h):
        total = (ceil_div(n, stride) - 1) * stride + kernel_size - n
        if kernel_size < stride:  # what the last kernel does not reach may be more than that
            total = -symbolic_min(-total, 0)
        amounts += [total // 2, total - total // 2]
    return F.pad(x, (0, 0, *amounts))
