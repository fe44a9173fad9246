"""Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import NormSpec
from hierarch.spec.registry import register


@register
class BatchNormSpec(NormSpec):
    """Normalization of each channel over the tokens of all images of a batch in training, and by
    running statistics of them in inference."""

    formula: ClassVar[str] = "2NC"
    paper: ClassVar[str] = "Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2"

    type: Literal["batch_norm"] = "batch_norm"
    """Batch normalization, InceptionNeXt's."""
    eps: Annotated[float, Strict(), Field(gt=0, le=1, allow_inf_nan=False)] = 1e-5
    """Added to the variance."""
    momentum: Annotated[float, Strict(), Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    """The share of a batch in the running statistics."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        # fvcore's estimate in inference: a product and a sum an element
        return 2 * tokens(grid) * dim

    def params(self, *, dim: int) -> int:
        return 2 * dim

    def build(self, dim: int, *, init: float = 1) -> nn.Module:
        return BatchNorm(dim, init=init, eps=self.eps, momentum=self.momentum)


class BatchNorm(nn.Module):
    """(B, H, W, C) -> (B, H, W, C). Recomputing a block in the backward pass takes its batch into
    the running statistics twice."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, init: float, eps: float, momentum: float) -> None:
        super().__init__()
        self.init, self.eps, self.momentum = init, eps, momentum
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.register_buffer("running_mean", torch.empty(dim))
        self.register_buffer("running_var", torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.init)
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.running_mean)
        nn.init.ones_(self.running_var)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.batch_norm(
            rearrange(x, "b h w c -> b c h w"),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
        return rearrange(normed, "b c h w -> b h w c")

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}, momentum={self.momentum:g}"
