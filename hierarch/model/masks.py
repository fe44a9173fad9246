"""How what is added to the logits lies in memory.

On a GPU, attention without an attention map (Rabe & Staats 2021, arXiv:2112.05682) reads a mask 16
bytes at a time. A mask whose rows, of N numbers, do not start at a multiple of 8 is one that torch
copies to where they do, at each call; and N = 7 * 7 is no multiple of 8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = 8
"""Numbers that rows are padded to a multiple of: 16 bytes in half precision."""


def aligned(mask: Tensor) -> Tensor:
    """(..., N, N) -> (..., N, N or more): in order in memory, and on a GPU with whole rows of 16
    bytes, whose rest is 0."""
    return in_whole_rows(mask) if _wants_whole_rows(mask) else mask.contiguous()


def _wants_whole_rows(mask: Tensor) -> bool:
    return mask.device.type != "cpu"


def in_whole_rows(mask: Tensor) -> Tensor:
    """(..., N) -> (..., N or more), in order in memory, up to a multiple of `ALIGNMENT`."""
    rest = -mask.shape[-1] % ALIGNMENT
    return F.pad(mask, (0, rest)) if rest else mask.contiguous()


def fitted(mask: Tensor, queries: Tensor, *, keys: int) -> Tensor:
    """(..., N, N or more) -> (..., N, N): the mask of so many keys, in the type of the queries."""
    mask = mask.to(queries.dtype)
    return mask[..., :keys] if _wants_whole_rows(mask) else mask
