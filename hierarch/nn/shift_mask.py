"""The mask of shifted windows (Swin, Liu et al. 2021, arXiv:2103.14030, section 3.2).

Pad, then shift, then mask: rows that were no neighbors before the shift never attend to each other.
Padding tokens are zeros that take part, as in torchvision and Hugging Face.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hierarch.nn.cut import Grid, Kind
from hierarch.nn.padding import is_zero

OTHER_REGION = -100.0
"""Added, as published, to the logit of a pair of tokens that are no neighbors in the image."""
KindMasks = Mapping[Kind, Tensor | None]
"""What is added to the logits of a window of each kind: (1, heads or 1, N, N)."""


def kind_masks(bias: Tensor | None, regions: Tensor, kinds: Sequence[Kind]) -> KindMasks:
    """The masks of windows with a position bias, (1, heads, N, N) or None, from those of the shift,
    (kinds, 1, N, N)."""
    masks = regions if bias is None else regions + bias
    return dict(zip(kinds, masks.chunk(len(kinds)), strict=True))


def shift_masks(window: Grid, shift: Grid, dtype: torch.dtype, *, device: torch.device) -> Tensor:
    """(kinds, 1, N, N): the mask of a window of each kind, without a position bias.

    They are the masks of two windows on each shifted axis, one inside and the last one.
    """
    counts = [1 if is_zero(by) else 2 for by in shift]
    return shift_mask(counts, window, shift, dtype=dtype, device=device)


def shift_mask(
    counts: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(windows, 1, N, N): 0 between neighbors, -100 between tokens that only the shift joined.

    `counts` are the windows along each axis. Only the last one holds both ends of the image.
    """
    rank = len(window)
    apart = torch.zeros([1] * (3 * rank), dtype=torch.bool, device=device)
    for axis, (count, size, by) in enumerate(zip(counts, window, shift, strict=True)):
        at_end = torch.arange(size, device=device) >= size - by
        is_last = torch.arange(count, device=device) == count - 1
        shape = [1] * (3 * rank)
        shape[axis], shape[rank + axis], shape[2 * rank + axis] = count, size, size
        joined = is_last[:, None, None] & (at_end[:, None] ^ at_end[None, :])
        apart = apart | joined.view(shape)
    number, size = math.prod(counts), math.prod(window)
    return (apart.to(dtype) * OTHER_REGION).reshape(number, 1, size, size)
