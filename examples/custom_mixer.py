"""A token mixer of your own, whole, in one file. docs/custom-mixer.md walks through it.

Large kernel attention (VAN, Guo et al. 2022, arXiv:2202.09741, section 3.1): a convolution with a
large kernel, decomposed into three cheap ones, weights each channel of each token.

    python examples/custom_mixer.py
"""

from typing import Annotated, ClassVar, Literal

import rich
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

import hierarch
from hierarch.spec.base import Kernel
from hierarch.spec.grid import Sides, tokens
from hierarch.testing import check_mixer


@hierarch.register
class LargeKernelAttentionSpec(hierarch.MixerSpec):
    """Tokens times a convolution of them with a large kernel, decomposed into three."""

    formula: ClassVar[str] = "((2d-1)² + k²)NC + NC²; k = kernel_size, d = dilation"
    paper: ClassVar[str] = "Guo et al. 2022, arXiv:2202.09741, section 3.1"

    type: Literal["my_large_kernel"] = "my_large_kernel"
    """Large kernel attention, VAN's."""
    kernel_size: Kernel = 7
    """Tokens along a side of the dilated kernel; odd."""
    dilation: Annotated[int, Field(ge=1, le=16, strict=True)] = 3
    """Distance of two neighbors in the dilated kernel."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # two depthwise convolutions, (2d-1)^2·NC and k^2·NC, and a pointwise one, NC^2
        local = 2 * self.dilation - 1
        return tokens(grid) * dim * (local**2 + self.kernel_size**2 + dim)

    def build(self, dim: int) -> nn.Module:
        return LargeKernelAttention(dim, kernel_size=self.kernel_size, dilation=self.dilation)


class LargeKernelAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, *, kernel_size: int, dilation: int) -> None:
        super().__init__()
        local, reach = 2 * dilation - 1, dilation * (kernel_size // 2)
        self.local = nn.Conv2d(dim, dim, local, padding=local // 2, groups=dim)
        self.dilated = nn.Conv2d(
            dim, dim, kernel_size, padding=reach, dilation=dilation, groups=dim
        )
        self.pointwise = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        images = rearrange(x, "b h w c -> b c h w")
        attention = self.pointwise(self.dilated(self.local(images)))
        return x * rearrange(attention, "b c h w -> b h w c")


if __name__ == "__main__":
    check_mixer("my_large_kernel")  # raises ConformanceError if the mixer breaks a rule
    check_mixer({"type": "my_large_kernel", "kernel_size": 5, "dilation": 2})
    network = hierarch.swap("swin_tiny", "my_large_kernel")
    rich.print(hierarch.measure(network, sizes=[224, 448, 896]))
