"""A strided convolution on a grid of tokens."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from hierarch.nn.padding import pad
from hierarch.spec.convolution import reach


def strided_conv(conv: nn.Module, x: Tensor, *, kernel_size: int, padding: int) -> Tensor:
    """(B, H, W, in_dim) -> (B, h, w, dim): a convolution, of which a rest of the grid that its
    kernel does not reach is left out. A map smaller than the kernel is padded to it."""
    _, h, w, _ = x.shape
    if type(h) is int and type(w) is int:  # torch.export refuses a map smaller than the kernel
        bottom, right = (reach(side, kernel_size=kernel_size, padding=padding) for side in (h, w))
        x = pad(x, bottom=bottom, right=right)
    images: Tensor = conv(rearrange(x, "b h w c -> b c h w"))
    return rearrange(images, "b c h w -> b h w c")
