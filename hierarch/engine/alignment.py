"""Attention masks on a GPU.

Attention without an attention map (Rabe & Staats 2021, arXiv:2112.05682) reads a mask 16 bytes at a
time there. torch copies a mask at each call unless its rows, of N numbers, start at multiples of 8;
and N = 7 * 7 is no multiple of 8.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarch.engine.conditions import not_eager_or_compiled
from hierarch.engine.seam import Refusal, way
from hierarch.nn import functional
from hierarch.nn.cut import Cut, kinds, kinds_by_axis
from hierarch.nn.window_mixer import KindMasks, MaskedWindowMixer, shift_mask

ALIGNMENT = 8
"""Numbers that a row's length is padded to a multiple of: 16 bytes in half precision."""


def refuses_aligned(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> Refusal | None:
    if like.device.type == "cpu":
        return Refusal("on a CPU", inapplicable=True)
    return not_eager_or_compiled(like)


@way("aligned", refuses_aligned)
def run_aligned(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> KindMasks:
    """The definition's masks, as views whose rows start at multiples of 16 bytes."""
    bias, of_kinds = mixer.bias(cut.window), kinds(cut.shift)
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else like.dtype
    size = like.shape[1]
    bias = None if bias is None else padded_rows(bias.to(dtype))
    if len(of_kinds) == 1:
        return {of_kinds[0]: None if bias is None else bias[..., :size]}
    sizes = kinds_by_axis(cut.shift), cut.window, cut.shift, dtype
    regions = functional.constant(_padded_shift_mask, *sizes, device=like.device)
    masks = (regions if bias is None else regions + bias)[..., :size]
    return dict(zip(of_kinds, masks.chunk(len(of_kinds)), strict=True))


def _padded_shift_mask(*sizes: Any, device: torch.device) -> Tensor:
    return padded_rows(shift_mask(*sizes, device=device))


def padded_rows(mask: Tensor) -> Tensor:
    """(..., N) -> (..., N or more): contiguous, with rows of a multiple of `ALIGNMENT` numbers."""
    rest = -mask.shape[-1] % ALIGNMENT
    return F.pad(mask, (0, rest)) if rest else mask.contiguous()
