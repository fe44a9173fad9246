"""Large kernel attention (VAN, Guo et al. 2022, arXiv:2202.09741, section 3).

A map is multiplied by a convolution of it with a large kernel, decomposed into a depthwise
convolution, a dilated depthwise one and a linear layer. There is no softmax and no query: the
"attention" is the gate.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.mixers.depthwise_conv import DepthwiseConv
from hierarch.nn import functional, init
from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import MixerSpec, linear_params
from hierarch.spec.registry import register


@register
class LargeKernelAttentionSpec(MixerSpec):
    """A gate by a decomposed convolution with a large kernel, between two linear layers, with a
    shortcut around all of it."""

    formula: ClassVar[str] = "3NC² + (K² + (2d-1)²)NC; K = kernel_size, d = dilation"
    paper: ClassVar[str] = "Guo et al. 2022, arXiv:2202.09741, section 3.1"

    type: Literal["large_kernel_attention"] = "large_kernel_attention"
    """Large kernel attention, VAN's."""
    kernel_size: Kernel = 7
    """Tokens along a side of the dilated kernel; odd."""
    dilation: Annotated[int, Strict(), Field(ge=1, le=32)] = 3
    """Steps from one token of the dilated kernel to the next. The kernel before it covers what lies
    between: 2·dilation - 1 tokens along a side. The decomposed kernel is the paper's
    K = kernel_size·dilation, 21 as published."""

    @property
    def local_kernel_size(self) -> int:
        return 2 * self.dilation - 1

    def macs(self, *, dim: int, grid: Sides) -> int:
        # K² and (2d-1)² for each channel, the linear layer after them, and the one at either end
        kernels = self.kernel_size**2 + self.local_kernel_size**2
        return tokens(grid) * dim * (3 * dim + kernels)

    def params(self, *, dim: int) -> int:
        kernels = (self.kernel_size**2 + 1) * dim + (self.local_kernel_size**2 + 1) * dim
        return 3 * linear_params(dim, dim) + kernels

    def build(self, dim: int) -> nn.Module:
        return LargeKernelAttention(self, dim)


class LargeKernelAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: LargeKernelAttentionSpec, dim: int) -> None:
        super().__init__()
        self.proj_1 = init.linear(dim, dim)
        self.conv0 = DepthwiseConv(dim, kernel_size=spec.local_kernel_size, bias=True)
        self.conv_spatial = DepthwiseConv(
            dim, kernel_size=spec.kernel_size, dilation=spec.dilation, bias=True
        )
        self.conv1 = init.linear(dim, dim)
        self.proj_2 = init.linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        values = F.gelu(functional.linear(self.proj_1, x))
        gate = functional.linear(self.conv1, self.conv_spatial(self.conv0(values)))
        return functional.linear(self.proj_2, values * gate) + x
