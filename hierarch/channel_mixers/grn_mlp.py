"""An MLP with global response normalization (ConvNeXt V2, Woo et al. 2023, arXiv:2301.00808)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn.layers import Mlp
from hierarch.spec.hidden_layer import HiddenLayerSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class GrnMlpSpec(HiddenLayerSpec):
    """An MLP in which the channels of its hidden layer compete: each is scaled by its norm over
    the map, relative to the mean norm of all channels."""

    needs_grid: ClassVar[bool] = True
    formula: ClassVar[str] = "2NCD; D = C·mlp_ratio. The norm is free, as element-wise work is"
    paper: ClassVar[str] = "Woo et al. 2023, arXiv:2301.00808, eq. (1)-(3) and algorithm 1"

    type: Literal["grn_mlp"] = "grn_mlp"
    """An MLP with global response normalization, ConvNeXt V2's."""
    eps: Annotated[float, Strict(), Field(gt=0, le=1, allow_inf_nan=False)] = 1e-6
    """Added to the mean norm."""

    def params(self, block: BlockPlan) -> int:
        # gamma and beta
        return super().params(block) + 2 * block.hidden_dim

    def build(self, block: BlockPlan) -> nn.Module:
        return GrnMlp(block, eps=self.eps)


class GrnMlp(Mlp):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, block: BlockPlan, *, eps: float) -> None:
        super().__init__(block)
        self.grn = GlobalResponseNorm(block.hidden_dim, eps=eps)

    def hidden(self, x: Tensor) -> Tensor:
        normed: Tensor = self.grn(super().hidden(x))
        return normed


class GlobalResponseNorm(nn.Module):
    """(B, H, W, D) -> (B, H, W, D): x + gamma * x * N + beta, N = G / mean(G), where G is the norm
    of each channel over the map. It starts as the identity."""

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = norms / (norms.mean(-1, keepdim=True) + self.eps)
        out: Tensor = x + self.weight * (x * relative) + self.bias
        return out
