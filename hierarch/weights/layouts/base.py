"""What a layout is, and the conversions that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import SmallMap
from hierarch.weights.names import Conversion, Row

Buffers = dict[str, Tensor]


def no_buffers(spec: BackboneSpec) -> Buffers:
    return {}


def _pads(names: Collection[str]) -> SmallMap:
    return "pad"


def no_prefix(names: Collection[str]) -> str:
    return ""


@dataclass(frozen=True)
class Layout:
    """One library's names for one network's weights."""

    library: str
    network: str
    rows: Sequence[Row]
    """Our names and theirs, the more special ones first."""
    marks: Callable[[Collection[str]], bool]
    """Whether their names are of this layout."""
    spellings: Sequence[tuple[str, str]] = ()
    """Patterns of other names for the same weights, older ones, and what replaces them."""
    prefix: Callable[[Collection[str]], str] = no_prefix
    """What stands before all names but the classifier's when they are written."""
    buffers: Callable[[BackboneSpec], Buffers] = no_buffers
    """What the library's own state dict holds besides weights."""
    outside: tuple[str, ...] = ()
    """How the names begin that the prefix does not stand before."""
    small_map: Callable[[Collection[str]], SmallMap] = _pads
    """What the library does with a map smaller than a window."""

    @property
    def name(self) -> str:
        return f"{self.library}:{self.network}"


def _chunks(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    [joined] = tensors
    return joined.chunk(3)


def _joined(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [torch.cat(list(tensors))]


SPLIT_QKV = Conversion(to_theirs=_chunks, to_ours=_joined)
"""Queries, keys and values: one weight here, three there."""


def _with_key_bias(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    q, v = tensors
    return [torch.cat([q, torch.zeros_like(q), v])]


def _without_key_bias(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    q, _, v = tensors[0].chunk(3)
    return [q, v]


WITH_KEY_BIAS = Conversion(to_theirs=_with_key_bias, to_ours=_without_key_bias)
"""The biases of queries and values here; there one with a middle third that is never used."""

CONV_1X1 = Conversion(
    to_theirs=lambda tensors: [tensors[0][:, :, None, None]],
    to_ours=lambda tensors: [tensors[0].flatten(1)],
)
"""A linear layer here, a convolution of one position there."""

FLAT_GRID = Conversion(to_theirs=lambda tensors: [tensors[0].flatten(1, -2)])
"""A vector per position: (1, h, w, C) here, (1, h*w, C) there. Which grid lies flat, the model
says when it is read."""
