"""An MLP over all the tokens of a grid (MLP-Mixer, ResMLP)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.model.layers import PlainLinear
from hierarch.spec.base import Pair, Side, pair, tokens
from hierarch.spec.head import Activation
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import default, register

Weights = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out) of a linear layer."""


@register
class TokenMlpSpec(MixerSpec):
    """A linear layer or two over the positions of the whole grid, the same for every channel.

    The weights belong to one grid. For another they are resized (bicubic), as an absolute position
    embedding is, and what is summed over more positions is scaled down by as much.
    """

    formula: ClassVar[str] = "2NDC, D = hidden_dim; without it N²C"
    paper: ClassVar[str] = "Tolstikhin et al. 2021, arXiv:2105.01601, eq. (1)"

    type: Literal["token_mlp"] = "token_mlp"
    """MLP over all tokens, MLP-Mixer's; with one layer ResMLP's."""
    grid: Annotated[int | Pair, Side(1, 256)]
    """Tokens along a side of the grid it is learned on, or [height, width]."""
    hidden_dim: Annotated[int, Strict(), Field(ge=1, le=65_536)] | None = None
    """Width of the hidden layer, in tokens; null for a single linear layer, as in ResMLP."""
    activation: Activation = default("activation", "gelu")
    """The hidden layer's activation."""

    def macs(self, *, dim: int, grid: Pair) -> int:
        n, own = tokens(grid), tokens(pair(self.grid))
        # each channel: N -> D -> N, or N -> N
        mixing = dim * n * (2 * self.hidden_dim if self.hidden_dim else n)
        if grid == pair(self.grid):
            return mixing
        # 4x4 neighbors of each resized weight and bias
        resized = 2 * self.hidden_dim * n if self.hidden_dim else own * n + n**2
        return mixing + 16 * (resized + n)

    def build(self, dim: int) -> nn.Module:
        return TokenMlp(self)


class TokenMlp(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, spec: TokenMlpSpec) -> None:
        super().__init__()
        self.grid = pair(spec.grid)
        n, hidden = tokens(self.grid), spec.hidden_dim
        self.fc1 = PlainLinear(n, hidden or n)
        self.act = spec.activation.build() if hidden else nn.Identity()
        self.fc2 = PlainLinear(hidden, n) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        columns = rearrange(x, "b h w c -> b c (h w)")
        first, last = self._weights((h, w))
        columns = self.act(F.linear(columns, *first))
        if last:
            columns = F.linear(columns, *last)
        return rearrange(columns, "b c (h w) -> b h w c", h=h)

    def _weights(self, grid: Pair) -> tuple[Weights, Weights | None]:
        """The weights of the layers for a grid."""
        first = (self.fc1.weight, self.fc1.bias)
        last = (self.fc2.weight, self.fc2.bias) if self.fc2 else None
        # a symbolic size (torch.export) is not branched on
        if type(grid[0]) is int and grid == self.grid:
            return first, last
        weight = self._resized(first[0], grid) * (tokens(self.grid) / tokens(grid))
        if last is None:
            return self._resized_outputs((weight, first[1]), grid), None
        return (weight, first[1]), self._resized_outputs(last, grid)

    def _resized_outputs(self, layer: Weights, grid: Pair) -> Weights:
        weight, bias = layer
        return self._resized(weight.T, grid).T, self._resized(bias[None], grid)[0]

    def _resized(self, rows: Tensor, grid: Pair) -> Tensor:
        """(D, N) -> (D, h*w): what stands at a position, at the positions of another grid."""
        images = rearrange(rows, "d (h w) -> 1 d h w", h=self.grid[0])
        resized = F.interpolate(images, size=grid, mode="bicubic", align_corners=False)
        return rearrange(resized, "1 d h w -> d (h w)")

    def extra_repr(self) -> str:
        return f"grid={self.grid}"
