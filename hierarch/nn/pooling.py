"""Means of neighboring tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

GRADIENT_IS_WRONG = torch.__version__ < "2.14"
"""True if torch's gradient of a padded average pooling is wrong on a GPU for channels-last input
(pytorch/pytorch#188344)."""


def mean_of_neighbors(x: Tensor, kernel_size: int, stride: int = 1) -> Tensor:
    """(B, H, W, C) -> (B, h, w, C): the mean of each neighborhood's tokens, without any beside the
    map. A neighborhood of odd sides has its token in the middle."""
    images = rearrange(x, "b h w c -> b c h w")
    if GRADIENT_IS_WRONG and images.is_cuda:
        images = images.contiguous()
    around = (kernel_size - 1) // 2
    mean = F.avg_pool2d(images, kernel_size, stride, padding=around, count_include_pad=False)
    return rearrange(mean, "b c h w -> b h w c")
