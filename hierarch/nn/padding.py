"""Sizes, padding and patches of maps (B, H, W, C).

Sizes may be symbolic (torch.compile, torch.export) or 0-dimensional tensors (torch.jit.trace), and
are then never branched on: `is_zero` is true only of a plain integer, so a concrete size skips the
work and a symbolic one does it with an amount of 0. Cropping is padding by a negative amount, since
a slice would leave guards on the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hierarch.spec.grid import Sides, ceil_div


def is_zero(n: int) -> bool:
    """True for the integer 0; False for any other number, and for symbolic ones."""
    return type(n) is int and n == 0


def symbolic_min(a: int, b: int) -> int:
    """The smaller of two sizes, which becomes part of the program where one is symbolic."""
    if type(a) is int and type(b) is int:
        return min(a, b)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return cast(int, torch.minimum(torch.as_tensor(a), torch.as_tensor(b)))
    return cast(int, torch.sym_min(a, b))


def pad(x: Tensor, amounts: Sequence[int]) -> Tensor:
    """(B, H, W, C) -> (B, H + a, W + b, C), with zeros, for `amounts` (a, b)."""
    if all(map(is_zero, amounts)):
        return x
    return F.pad(x, (0, 0, *(amount for after in reversed(amounts) for amount in (0, after))))


def pad_to_multiple(x: Tensor, multiple: Sides) -> Tensor:
    """(B, H, W, C) -> the same with H and W brought to multiples, at their ends."""
    # torch 2.14 cannot compile the gradient of a convolution of a map that is padded by a symbolic
    # amount; sizes that need no padding are compiled apart
    along = zip(x.shape[1:-1], multiple, strict=True)
    return pad(x, [ceil_div(side, of) * of - side for side, of in along])


def patch_rows(x: Tensor, patch: Sequence[int], *, channels_first: bool) -> Tensor:
    """(B, H, W, C) -> (B, H / P, W / Q, C * P * Q), for patches of (P, Q) that divide the map.

    A patch has its numbers channel by channel, as a convolution's weight has them, or else token by
    token, column after column.

    >>> import torch
    >>> x = torch.arange(4).view(1, 2, 2, 1)
    >>> patch_rows(x, (2, 2), channels_first=False).tolist()
    [[[[0, 2, 1, 3]]]]
    """
    sides = {f"p{axis}": side for axis, side in enumerate(patch)}
    split = " ".join(f"(n{p} {p})" for p in sides)
    grid = " ".join(f"n{p}" for p in sides)
    row = " ".join(["c", *sides] if channels_first else [*reversed(sides), "c"])
    return rearrange(x, f"b {split} c -> b {grid} ({row})", **sides)


def move(x: Tensor, *, down: int = 0, right: int = 0) -> Tensor:
    """(B, H, W, C) -> the same, moved. Zeros come in, and what leaves the map is dropped."""
    top, left, bottom, right_ = max(down, 0), max(right, 0), max(-down, 0), max(-right, 0)
    grown = F.pad(x, (0, 0, left, right_, top, bottom))
    # cropped in a second step, since a map may be smaller than the move
    return F.pad(grown, (0, 0, -right_, -left, -bottom, -top))


def contiguous(x: Tensor) -> Tensor:
    """A contiguous copy, always.

    Whether a reshape has to copy depends on the size, and finding out leaves torch.export a guard
    on the size.
    """
    return x.clone(memory_format=torch.contiguous_format)
