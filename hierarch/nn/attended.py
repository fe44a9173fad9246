"""What can be asked of a mixer by attention: where the attention of one token is, in what it
computes for one image, and its position bias."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hierarch.nn.cut import Cut, product
from hierarch.spec.grid import Sides

PADDING = -1
"""Stands for a token where a key is none."""


@dataclass(frozen=True)
class Row:
    """One query among those that a mixer gives to attention, and the tokens of its keys."""

    query: tuple[slice, slice, slice]
    """Of the queries (sequences, heads, N, d), those of one token, one for each head."""
    keys: Tensor
    """(M): the token of each key, counted along the rows of the grid; `PADDING` for none."""


@runtime_checkable
class Attends(Protocol):
    """A mixer that calls torch's `scaled_dot_product_attention`, once, and can say where in it the
    attention of a token is."""

    def row(self, grid: Sides, token: int) -> Row:
        """Where the attention of a token is, in a batch of one. Tokens are counted along rows."""


@runtime_checkable
class Biased(Protocol):
    """A mixer by attention that may have a position bias."""

    def bias_by_offset(self, grid: Sides) -> Tensor | None:
        """(heads, 2h - 1, 2w - 1): what is added to the logit of a key, by its offset from the
        query, which is at the center. None without a bias."""


def one(index: int) -> slice:
    """The slice that holds one index."""
    return slice(index, index + 1)


def row_in_window(cut: Cut, token: int) -> Row:
    """The row of a token that attends to the slots of its window."""
    slots, size = cut.slots(1, device=torch.device("cpu")), product(cut.window)
    window, slot = divmod(int(slots[token]), size)
    keys = torch.full((size,), PADDING)
    (inside,) = torch.where(slots // size == window)
    keys[slots[inside] % size] = inside
    return Row((one(window), slice(None), one(slot)), keys)


def by_offset(bias: Tensor, window: Sides) -> Tensor:
    """(1, heads, N, N) -> (heads, 2h - 1, 2w - 1): the bias of each pair of a window's N = h*w
    tokens, by offset. The corners of a window see keys at all offsets.
    """
    heads, every = bias.shape[1], slice(None)
    of_queries = bias.view(heads, *window, *window)
    table = bias.new_empty(heads, *(2 * side - 1 for side in window))
    for corner in itertools.product(*({0, side - 1} for side in window)):
        first = [side - 1 - place for side, place in zip(window, corner, strict=True)]
        offsets = (slice(start, start + side) for start, side in zip(first, window, strict=True))
        at: tuple[slice | int, ...] = (every, *corner)
        table[(every, *offsets)] = of_queries[at]
    return table
