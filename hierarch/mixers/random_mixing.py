"""Random mixing (RandFormer, Yu et al. 2022, arXiv:2210.13452): a matrix that is never trained.

Each token becomes a mean of all tokens, with weights that are drawn once and shared by all
channels: the lower bound of what a token mixer over the whole map does.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from hierarch.mixers.token_mlp import resize_rows
from hierarch.spec.base import Side
from hierarch.spec.grid import Sides, per_axis, tokens
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class RandomMixingSpec(MixerSpec):
    """A frozen random matrix over the positions of the whole grid, whose rows sum to 1.

    The matrix is for one grid, and is saved with the weights. For another grid it is resized
    (bicubic), as the weights of a token_mlp are, and its rows are made to sum to 1 again.
    """

    formula: ClassVar[str] = "N²C"
    paper: ClassVar[str] = "Yu et al. 2022, arXiv:2210.13452, eq. (4)"

    type: Literal["random_mixing"] = "random_mixing"
    """Random mixing, RandFormer's: a frozen matrix over all tokens."""
    grid: Annotated[int | Sides, Side(1, 256)]
    """Tokens along a side of the grid that the matrix is for, or [height, width]."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        n, own = tokens(grid), tokens(per_axis(self.grid))
        # 16 for each resized element (bicubic): of its rows, then of its columns
        resized = 0 if grid == per_axis(self.grid) else 16 * (own * n + n**2)
        return n**2 * dim + resized

    def params(self, *, dim: int) -> int:
        return 0

    def build(self, dim: int) -> nn.Module:
        return RandomMixing(per_axis(self.grid))


class RandomMixing(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    random_matrix: Tensor

    def __init__(self, grid: Sides) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("random_matrix", torch.empty(tokens(grid), tokens(grid)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.random_matrix.copy_(torch.rand_like(self.random_matrix).softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        # a symbolic size (torch.export) is not branched on
        own = type(h) is int and (h, w) == self.grid
        matrix = self.random_matrix if own else self._resized((h, w))
        return (matrix @ x.flatten(1, 2)).view(x.shape)

    def _resized(self, grid: Sides) -> Tensor:
        """(h*w, h*w): the matrix for this grid."""
        matrix = resize_rows(self.random_matrix, self.grid, grid)
        matrix = resize_rows(matrix.T, self.grid, grid).T
        return matrix / matrix.sum(-1, keepdim=True)

    def extra_repr(self) -> str:
        return f"grid={self.grid}"
