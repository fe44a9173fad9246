"""Average pooling as a mixer (PoolFormer, Yu et al. 2021, arXiv:2111.11418)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class PoolingSpec(MixerSpec):
    """The mean of a token's neighborhood minus the token. It has no parameters."""

    formula: ClassVar[str] = "0: additions only, which are free by fvcore's convention"
    paper: ClassVar[str] = "Yu et al. 2021, arXiv:2111.11418, eq. (4)"

    type: Literal["pooling"] = "pooling"
    """Average pooling, PoolFormer's."""
    kernel_size: Kernel = 3
    """Tokens along a side of the neighborhood; odd."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return 0

    def build(self, dim: int) -> nn.Module:
        return Pooling(self.kernel_size)


GRADIENT_IS_WRONG = torch.__version__ < "2.14"
"""True if torch's gradient of a padded average pooling is wrong on a GPU for channels-last input
(pytorch/pytorch#188344)."""


class Pooling(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        k = self.kernel_size
        images = rearrange(x, "b h w c -> b c h w")
        if GRADIENT_IS_WRONG and images.is_cuda:
            images = images.contiguous()
        mean = F.avg_pool2d(images, k, stride=1, padding=k // 2, count_include_pad=False)
        return rearrange(mean, "b c h w -> b h w c") - x

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"
