"""Sizes and padding of maps (B, H, W, C).

Sizes may be symbolic (torch.compile, torch.export) or 0-dimensional tensors (torch.jit.trace), and
are then never branched on: `is_zero` is true only of a plain integer, so a concrete size skips the
work and a symbolic one does it with an amount of 0. Cropping is padding by a negative amount, since
a slice would leave guards on the size.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarch.spec.grid import Pair, ceil_div


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


def pad(x: Tensor, *, bottom: int = 0, right: int = 0) -> Tensor:
    """(B, H, W, C) -> (B, H + bottom, W + right, C), with zeros."""
    if is_zero(bottom) and is_zero(right):
        return x
    return F.pad(x, (0, 0, 0, right, 0, bottom))


def pad_to_multiple(x: Tensor, multiple: Pair) -> Tensor:
    """(B, H, W, C) -> the same with H and W brought to multiples, at the bottom and the right."""
    (h, w), (mh, mw) = x.shape[1:3], multiple
    bottom, right = ceil_div(h, mh) * mh - h, ceil_div(w, mw) * mw - w
    # torch 2.14 cannot compile the gradient of a convolution of a map that is padded by a symbolic
    # amount; sizes that need no padding are compiled apart
    return pad(x, bottom=bottom, right=right)


def contiguous(x: Tensor) -> Tensor:
    """A contiguous copy, always.

    Whether a reshape has to copy depends on the size, and finding out leaves torch.export a guard
    on the size.
    """
    return x.clone(memory_format=torch.contiguous_format)
