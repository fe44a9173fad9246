"""The output grid of a strided convolution, for claims and modules."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from hierarch.spec.grid import Sides, ceil_div

Length = Annotated[int, Strict(), Field(ge=1, le=64)]
"""Side of a kernel, or of a stride."""
Padding = Annotated[int, Strict(), Field(ge=0, le=64)]


def reach(n: int, *, kernel_size: int, padding: int) -> int:
    """Padding at the end of an axis of `n` tokens that makes the kernel fit once."""
    return max(0, kernel_size - 2 * padding - n)


def strided(grid: Sides, *, kernel_size: int, stride: int, padding: int) -> Sides:
    """The output grid: floor((n + 2P - K) / S) + 1 on each axis, and at least 1."""

    def side(n: int) -> int:
        return max(1, ceil_div(n + 2 * padding - kernel_size + 1, stride))

    h, w = grid
    return side(h), side(w)
