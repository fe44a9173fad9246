"""A shift of some channels by one token (ShiftViT, Wang et al. 2022, arXiv:2201.10801).

It has no parameters and no multiplications: what a network learns with it, it learns by its MLPs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn.padding import move
from hierarch.spec.grid import Sides
from hierarch.spec.parts import MixerSpec
from hierarch.spec.registry import register


@register
class ShiftSpec(MixerSpec):
    """A part of the channels moves one token to the left, as many to the right, up and down; the
    others stay. What leaves the map is dropped, and zeros come in."""

    formula: ClassVar[str] = "0: it moves data, which is free by fvcore's convention"
    paper: ClassVar[str] = "Wang et al. 2022, arXiv:2201.10801, section 3"

    type: Literal["shift"] = "shift"
    """A shift without parameters, ShiftViT's."""
    n_div: Annotated[int, Strict(), Field(ge=4, le=1024)] = 12
    """Each of the four directions takes dim / n_div channels, rounded down."""

    def check(self, *, dim: int) -> None:
        if dim < self.n_div:
            raise ValueError(f"n_div={self.n_div} leaves no channel to shift at dim={dim}")

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return 0

    def build(self, dim: int) -> nn.Module:
        return Shift(dim // self.n_div)


class Shift(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): `group` channels to the left, to the right, up, and down."""

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        sizes = [self.group] * 4 + [x.shape[-1] - 4 * self.group]
        left, right, up, down, staying = x.split_with_sizes(sizes, dim=-1)
        moved = [move(left, right=-1), move(right, right=1), move(up, down=-1), move(down, down=1)]
        return torch.cat([*moved, staying], dim=-1)

    def extra_repr(self) -> str:
        return f"group={self.group}"
