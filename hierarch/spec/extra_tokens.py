"""The spec of tokens outside of the grid: class, distillation and register tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from hierarch.spec.base import Flag, Spec
from hierarch.spec.grid import Sides, tokens


class ExtraTokensSpec(Spec):
    """Learned tokens that every image gets, in front of those of its grid (Dosovitskiy et al. 2020,
    arXiv:2010.11929, section 3.1)."""

    class_token: Flag = True
    """A token that a head may classify."""
    distillation_token: Flag = False
    """A token for a teacher's label, and a second classifier (Touvron et al. 2020,
    arXiv:2012.12877, section 4); the logits are the mean of the two."""
    registers: Annotated[int, Strict(), Field(ge=0, le=64)] = 0
    """Tokens that nothing reads (Darcet et al. 2023, arXiv:2309.16588)."""
    positions: Flag = True
    """A learned position for each of them, as the grid's tokens have with `absolute`."""

    @property
    def count(self) -> int:
        """How many there are."""
        return self.class_token + self.distillation_token + self.registers

    def row(self, grid: Sides) -> Sides:
        """The row of tokens that they and those of a grid form."""
        return 1, self.count + tokens(grid)

    def params(self, *, dim: int) -> int:
        return self.count * dim * (1 + self.positions)
