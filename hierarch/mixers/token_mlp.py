"""An MLP over all the tokens of a grid (MLP-Mixer, ResMLP)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import init
from hierarch.nn.layers import build_activation
from hierarch.spec.base import Side
from hierarch.spec.grid import Sides, per_axis, tokens
from hierarch.spec.head import Activation
from hierarch.spec.parts import MixerSpec, linear_params
from hierarch.spec.registry import default, register


@register
class TokenMlpSpec(MixerSpec):
    """One or two linear layers over the positions of the whole grid, shared by all channels.

    The weights are for one grid. For another grid they are resized (bicubic), as an absolute
    position embedding is, and scaled by the ratio of the numbers of positions that are summed.
    """

    formula: ClassVar[str] = "2NDC, D = hidden_dim; without it N²C"
    paper: ClassVar[str] = "Tolstikhin et al. 2021, arXiv:2105.01601, eq. (1)"

    type: Literal["token_mlp"] = "token_mlp"
    """MLP over all tokens, MLP-Mixer's; with a single layer, ResMLP's."""
    grid: Annotated[int | Sides, Side(1, 256)]
    """Tokens along a side of the grid that the weights are for, or [height, width]."""
    hidden_dim: Annotated[int, Strict(), Field(ge=1, le=65_536)] | None = None
    """Width of the hidden layer, in tokens; null for a single linear layer, as in ResMLP."""
    activation: Activation = default("activation", "gelu")
    """The hidden layer's activation."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        n, own, hidden = tokens(grid), tokens(per_axis(self.grid)), self.hidden_dim
        # each channel: N -> D -> N, or N -> N
        mixing = dim * n * (2 * hidden if hidden else n)
        if grid == per_axis(self.grid):
            return mixing
        # each layer's matrix, computed by the layer; then 16 for each resized element (bicubic)
        matrices = own * ((own + 1) * hidden + (hidden + 1) * hidden if hidden else (own + 1) * own)
        resized = 2 * hidden * n if hidden else own * n + n**2
        return mixing + matrices + 16 * (resized + n)

    def params(self, *, dim: int) -> int:
        n, hidden = tokens(per_axis(self.grid)), self.hidden_dim
        if not hidden:
            return linear_params(n, n)
        return linear_params(n, hidden) + self.activation.params() + linear_params(hidden, n)

    def build(self, dim: int) -> nn.Module:
        return TokenMlp(self)


class TokenMlp(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: TokenMlpSpec) -> None:
        super().__init__()
        self.grid = per_axis(spec.grid)
        n, hidden = tokens(self.grid), spec.hidden_dim
        self.fc1 = init.linear(n, hidden or n)
        self.act = build_activation(spec.activation) if hidden else nn.Identity()
        self.fc2 = init.linear(hidden, n) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        columns = rearrange(x, "b h w c -> b c (h w)")
        # a symbolic size (torch.export) is not branched on
        if type(h) is int and (h, w) == self.grid:
            mixed: Tensor = self.act(self.fc1(columns))
            mixed = mixed if self.fc2 is None else self.fc2(mixed)
        else:
            mixed = self._resized((h, w), columns)
        return rearrange(mixed, "b c (h w) -> b h w c", h=h)

    def _resized(self, grid: Sides, columns: Tensor) -> Tensor:
        """(B, C, h*w) -> (B, C, h*w): the layers with their weights resized to this grid."""
        weight, bias = matrix(self.fc1, tokens(self.grid), like=columns)
        weight = resize_rows(weight, self.grid, grid) * (tokens(self.grid) / tokens(grid))
        if self.fc2 is None:
            return F.linear(columns, *self._resize_outputs(weight, bias, grid))
        columns = self.act(F.linear(columns, weight, bias))
        fc2 = matrix(self.fc2, columns.shape[-1], like=columns)
        return F.linear(columns, *self._resize_outputs(*fc2, grid))

    def _resize_outputs(self, weight: Tensor, bias: Tensor, grid: Sides) -> tuple[Tensor, Tensor]:
        weight = resize_rows(weight.T, self.grid, grid).T
        return weight, resize_rows(bias[None], self.grid, grid)[0]

    def extra_repr(self) -> str:
        return f"grid={self.grid}"


def resize_rows(rows: Tensor, own: Sides, grid: Sides) -> Tensor:
    """(D, N) -> (D, h*w): resizes rows over the positions of one grid to another grid (bicubic)."""
    images = rearrange(rows, "d (h w) -> 1 d h w", h=own[0])
    resized = F.interpolate(images, size=grid, mode="bicubic", align_corners=False)
    return rearrange(resized, "1 d h w -> d (h w)")


def matrix(layer: nn.Module, in_features: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (out, in) and the bias (out) of a linear layer.

    They are computed from its outputs, not read from its parameters, since a wrapper of a linear
    layer, such as LoRA, has other parameters.
    """
    unit = torch.eye(in_features, dtype=like.dtype, device=like.device)
    outputs = layer(torch.cat([unit, unit.new_zeros(1, in_features)]))
    return (outputs[:-1] - outputs[-1]).T, outputs[-1]
