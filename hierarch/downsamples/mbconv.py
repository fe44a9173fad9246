"""The inverted residual of MaxViT and CoAtNet (MBConv) with a stride, as a downsampling."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.inverted_residual import InvertedResidual
from hierarch.nn.layers import build_norm
from hierarch.nn.padding import pad_to_multiple
from hierarch.spec.grid import Sides, ceil_div, tokens
from hierarch.spec.inverted_residual import InvertedResidualSpec
from hierarch.spec.parts import DownsampleSpec, linear_params
from hierarch.spec.registry import register

STRIDE = 2


@register
class MbConvSpec(InvertedResidualSpec, DownsampleSpec):
    """Half of the tokens on each axis, in two branches that are added: a norm and an inverted
    residual whose depthwise convolution has a stride of 2, and the mean of 2x2 tokens, with a
    linear layer where the width changes. `norm` is the norm of the first branch's input, too.

    An odd side is padded with zeros: in the convolution as TensorFlow's "same" does, and in the
    mean at the end.
    """

    formula: ClassVar[str] = (
        "NCD + N'(K² + C')D + 2DR + N'CC' if C ≠ C' + the norms'; N' = N/4, D = C'·expand_ratio"
    )
    paper: ClassVar[str] = (
        "Sandler et al. 2018, arXiv:1801.04381, section 3.3; Tu et al. 2022, arXiv:2204.01697"
    )

    type: Literal["mbconv"] = "mbconv"
    """Inverted residual with squeeze-and-excitation and a stride, MaxViT's."""

    def stride(self) -> Sides:
        return STRIDE, STRIDE

    def grid(self, grid: Sides) -> Sides:
        return tuple(ceil_div(n, STRIDE) for n in grid)

    def macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        out = self.grid(grid)
        shortcut = tokens(out) * in_dim * dim if in_dim != dim else 0
        branch = self.branch_macs(in_dim=in_dim, dim=dim, grid=grid, out_grid=out)
        return self.norm.macs(dim=in_dim, grid=grid) + branch + shortcut

    def padding_macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, in_dim: int, dim: int) -> int:
        shortcut = linear_params(in_dim, dim, bias=self.bias) if in_dim != dim else 0
        branch = self.branch_params(in_dim=in_dim, dim=dim)
        return self.norm.params(dim=in_dim) + branch + shortcut

    def build(self, in_dim: int, dim: int) -> nn.Module:
        return MbConv(self, in_dim=in_dim, dim=dim)


class MbConv(nn.Module):
    """(B, H, W, in_dim) -> (B, ceil(H / 2), ceil(W / 2), dim)."""

    def __init__(self, spec: MbConvSpec, *, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = build_norm(spec.norm, in_dim)
        self.branch = InvertedResidual(spec, in_dim=in_dim, dim=dim, stride=STRIDE)
        self.shortcut: nn.Module = nn.Identity()
        if in_dim != dim:
            self.shortcut = init.linear(in_dim, dim, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.linear(self.shortcut, mean_of_patches(x))
        branch: Tensor = self.branch(self.norm(x))
        return pooled + branch


def mean_of_patches(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C): the mean of each 2x2 tokens."""
    padded = rearrange(pad_to_multiple(x, (STRIDE, STRIDE)), "b h w c -> b c h w")
    return rearrange(F.avg_pool2d(padded, STRIDE), "b c h w -> b h w c")
