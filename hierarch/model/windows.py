"""Cutting a grid into windows and putting it together again.

Sizes may be symbolic (torch.export) and are then never branched on: `is_zero` is true only of a
plain integer, so a concrete size skips the work and a symbolic one does it with an amount of 0.
Cropping is padding by a negative amount, since a slice would leave guards on the size.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hierarch.spec.base import Pair, ceil_div


def is_zero(n: int) -> bool:
    return type(n) is int and n == 0


def is_known(condition: bool) -> bool:
    """Whether it holds for all sizes that torch compiles a program for; else, whether it holds."""
    if not torch.compiler.is_compiling():
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def least(a: int, b: int) -> int:
    """The smaller of two sizes. torch's compiler has a `min` of symbolic ones, and older ones no
    `sym_min` of others; an export must not be asked which one it is."""
    return min(a, b) if torch.compiler.is_dynamo_compiling() else cast(int, torch.sym_min(a, b))


def pad(x: Tensor, *, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> Tensor:
    """(B, H, W, C) -> (B, top + H + bottom, left + W + right, C), with zeros; negative crops."""
    # compiled, one program pads by whatever it takes; where that is always 0, nothing is left of it
    if not torch.compiler.is_dynamo_compiling() and all(map(is_zero, (top, bottom, left, right))):
        return x
    return F.pad(x, (0, 0, left, right, top, bottom))


def pad_to_windows(x: Tensor, window: Pair) -> Tensor:
    """(B, H, W, C) -> the same with H and W brought to multiples, at the bottom and the right."""
    bottom, right = _missing(x, window)
    return pad(x, bottom=bottom, right=right)


def pad_to_multiple(x: Tensor, multiple: Pair) -> Tensor:
    """`pad_to_windows`, but compiled for sizes that are multiples apart from those that are not:
    torch 2.14 cannot compile the gradient of a convolution of what it pads by any amount."""
    missing = _missing(x, multiple)
    return x if all(map(is_zero, missing)) else pad_to_windows(x, multiple)


def _missing(x: Tensor, multiple: Pair) -> Pair:
    """How far H and W are from the next multiples."""
    (h, w), (mh, mw) = x.shape[1:3], multiple
    return ceil_div(h, mh) * mh - h, ceil_div(w, mw) * mw - w


def roll(x: Tensor, shift: Pair) -> Tensor:
    """(B, H, W, C) -> the same, moved down and right by `shift`, cyclically."""
    return x if all(map(is_zero, shift)) else torch.roll(x, shift, dims=(1, 2))


def copied(x: Tensor) -> Tensor:
    """The same values, in order in memory.

    Whether a reshape has to copy depends on the size, and to find out leaves torch.export a guard
    on it; so what nearly always is a copy is always one.
    """
    return x.clone(memory_format=torch.contiguous_format)


def partition(x: Tensor, window: Pair) -> Tensor:
    """(B, H, W, C) -> (B*nH*nW, h*w, C); H and W are multiples of the window's h and w."""
    h, w = window
    windows = copied(rearrange(x, "b (nh h) (nw w) c -> b nh nw h w c", h=h, w=w))
    return rearrange(windows, "b nh nw h w c -> (b nh nw) (h w) c")


def merge(x: Tensor, window: Pair, grid: Pair, *, batch: int) -> Tensor:
    """(B*nH*nW, h*w, C) -> (B, H, W, C): undoes `partition` of a grid of H x W."""
    (h, w), (height, width) = window, grid
    sizes = {"b": batch, "nh": height // h, "nw": width // w, "h": h, "w": w}
    rows = copied(rearrange(x, "(b nh nw) (h w) c -> b nh h nw w c", **sizes))
    return rearrange(rows, "b nh h nw w c -> b (nh h) (nw w) c")
