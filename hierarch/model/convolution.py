"""A strided convolution on a grid of tokens."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from hierarch.model.windows import pad
from hierarch.spec.convolution import reach


class StridedConv(nn.Conv2d):
    """(B, H, W, in_dim) -> (B, h, w, dim): zeros around the grid, and a rest that is left out."""

    def __init__(
        self, in_dim: int, dim: int, *, kernel_size: int, stride: int, padding: int, bias: bool
    ) -> None:
        super().__init__(in_dim, dim, kernel_size, stride=stride, padding=padding, bias=bias)
        self.reach = {"kernel_size": kernel_size, "padding": padding}

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        if type(h) is int and type(w) is int:  # a map smaller than the kernel; not when exporting
            x = pad(x, bottom=reach(h, **self.reach), right=reach(w, **self.reach))
        images: Tensor = super().forward(rearrange(x, "b h w c -> b c h w"))
        return rearrange(images, "b c h w -> b h w c")
