"""Attention masks on a GPU.

Attention without an attention map (Rabe & Staats 2021, arXiv:2112.05682) reads a mask 16 bytes at a
time there. torch copies a mask at each call unless its rows, of N numbers, start at multiples of 8;
and N = 7 * 7 is no multiple of 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarch.engine.conditions import not_eager_or_compiled, on_cpu
from hierarch.nn.cut import Cut, Grid, kinds
from hierarch.nn.functional import constant
from hierarch.nn.ops import Refusal
from hierarch.nn.shift_mask import KindMasks, kind_masks, shift_masks
from hierarch.nn.window_mixer import MaskedWindows

ALIGNMENT = 8
"""Numbers that a row's length is padded to a multiple of: 16 bytes in half precision."""


def refuses_aligned(mixer: MaskedWindows, cut: Cut, like: Tensor) -> Refusal | None:
    return on_cpu(like) or not_eager_or_compiled(like)


def run_aligned(mixer: MaskedWindows, cut: Cut, like: Tensor) -> KindMasks:
    """`functional.masks`, of views whose rows start at multiples of 16 bytes."""
    bias, of_kinds = mixer.bias(cut.window), kinds(cut.shift)
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else like.dtype
    size = like.shape[1]
    bias = None if bias is None else padded_rows(bias.to(dtype))
    if len(of_kinds) == 1:
        return {of_kinds[0]: None if bias is None else bias[..., :size]}
    regions = constant(_padded_shift_masks, cut.window, cut.shift, dtype, device=like.device)
    masks = kind_masks(bias, regions, of_kinds)
    return {kind: None if mask is None else mask[..., :size] for kind, mask in masks.items()}


def _padded_shift_masks(
    window: Grid, shift: Grid, dtype: torch.dtype, *, device: torch.device
) -> Tensor:
    return padded_rows(shift_masks(window, shift, dtype, device=device))


def padded_rows(mask: Tensor) -> Tensor:
    """(..., N) -> (..., N or more): contiguous, with rows of a multiple of `ALIGNMENT` numbers."""
    rest = -mask.shape[-1] % ALIGNMENT
    return F.pad(mask, (0, rest)) if rest else mask.contiguous()
