"""Global filter (GFNet, Rao et al. 2021, arXiv:2107.00645, section 3.2): a product of spectra.

A 2-D Fourier transform of each channel, times a learned filter, and back: a circular convolution
with a kernel as large as the map.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.spec.base import Side
from hierarch.spec.grid import Sides, per_axis, tokens
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class GlobalFilterSpec(MixerSpec):
    """A learned complex factor per frequency and channel.

    The filter is for one grid. For another grid it is resized (bicubic, corner to corner), as the
    published code does for other image sizes. It is computed in float32 or above.
    """

    formula: ClassVar[str] = (
        "2NC(⌈log₂H⌉ + ⌈log₂W⌉): two real transforms, of ⌈log₂⌉ multiply-adds an element and axis"
    )
    paper: ClassVar[str] = "Rao et al. 2021, arXiv:2107.00645, section 3.2"

    type: Literal["global_filter"] = "global_filter"
    """Global filter, GFNet's: a product in the frequency domain."""
    grid: Annotated[int | Sides, Side(1, 256)]
    """Tokens along a side of the grid that the filter is for, or [height, width]."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # there and back, in log2(n) steps along each axis; the product is element-wise and free
        steps = sum((n - 1).bit_length() for n in grid)
        # 16 for each resized element (bicubic), real and imaginary
        resized = 0 if grid == per_axis(self.grid) else 16 * 2 * tokens(frequencies(grid)) * dim
        return 2 * tokens(grid) * dim * steps + resized

    def params(self, *, dim: int) -> int:
        return 2 * tokens(frequencies(per_axis(self.grid))) * dim

    def build(self, dim: int) -> nn.Module:
        return GlobalFilter(dim, grid=per_axis(self.grid))


def frequencies(grid: Sides) -> Sides:
    """The frequencies of a map of real numbers, (H, W // 2 + 1): half of them follow from the
    others."""
    h, w = grid
    return h, w // 2 + 1


class GlobalFilter(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, *, grid: Sides) -> None:
        super().__init__()
        self.grid = grid
        self.complex_weight = nn.Parameter(torch.empty(*frequencies(grid), dim, 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.complex_weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        dtype = torch.promote_types(x.dtype, torch.float32)
        spectrum = torch.fft.rfft2(x.to(dtype), dim=(1, 2), norm="ortho")
        filtered = spectrum * torch.view_as_complex(self.filter((h, w)).to(dtype))
        out: Tensor = torch.fft.irfft2(filtered, s=(h, w), dim=(1, 2), norm="ortho")
        return out.to(x.dtype)

    def filter(self, grid: Sides) -> Tensor:
        """(H, W // 2 + 1, C, 2): the filter for this grid."""
        weight: Tensor = self.complex_weight
        # a symbolic size (torch.export) is not branched on
        if type(grid[0]) is int and grid == self.grid:
            return weight
        images = rearrange(weight, "h w c two -> 1 (c two) h w")
        size = frequencies(grid)
        resized = F.interpolate(images, size=size, mode="bicubic", align_corners=True)
        return rearrange(resized, "1 (c two) h w -> h w c two", two=2).contiguous()

    def extra_repr(self) -> str:
        return f"grid={self.grid}"
