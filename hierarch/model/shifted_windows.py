"""Attention in windows, regular or shifted (Swin, Liu et al. 2021, arXiv:2103.14030, section 3.2).

Pads, then shifts, then masks: rows that were no neighbors before the shift never attend to each
other. Padded tokens are zeros that take part, as in torchvision and Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hierarch.model.windows import is_zero, merge, pad, pad_to_multiple, partition, roll
from hierarch.spec.base import Pair, tokens

OTHER_REGION = -100.0
"""Added, as published, to the logit of a pair of tokens that are no neighbors in the image."""


def in_windows(
    x: Tensor,
    attend: Callable[[Tensor, Tensor | None], Tensor],
    *,
    window: Pair,
    shift: Pair,
    bias: Tensor | None,
) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): attention in windows, then back in place.

    `attend` maps (B*nW, N, C), and what is added to the logits, (B*nW or 1, heads or 1, N, N) or
    None, to (B*nW, N, C). `bias`, (1, heads, N, N), is that of every window.
    """
    _, h, w, _ = x.shape
    down, right = shift
    x = roll(pad_to_multiple(x, window), (-down, -right))
    padded = (x.shape[1], x.shape[2])
    x = attend(partition(x, window), _mask(x, window, shift, bias))
    x = roll(merge(x, window, padded), (down, right))
    return pad(x, bottom=h - padded[0], right=w - padded[1])


def _mask(x: Tensor, window: Pair, shift: Pair, bias: Tensor | None) -> Tensor | None:
    if all(map(is_zero, shift)):
        return bias
    b, h, w, _ = x.shape
    regions = shift_mask((h // window[0], w // window[1]), window, shift, like=x)
    return (regions if bias is None else regions + bias).repeat(b, 1, 1, 1)


def shift_mask(windows: Pair, window: Pair, shift: Pair, *, like: Tensor) -> Tensor:
    """(nH*nW, 1, N, N): 0 between neighbors, -100 between what only the shift brought together.

    Only the last window of an axis holds both ends of the image.
    """

    def apart(n: int, size: int, moved: int) -> Tensor:
        """(n, size, size): whether two positions of a window come from different ends."""
        end = torch.arange(size, device=like.device) >= size - moved
        last = torch.arange(n, device=like.device) == n - 1
        return last[:, None, None] & (end[:, None] != end[None, :])

    rows, columns = map(apart, windows, window, shift)
    either = rows[:, None, :, None, :, None] | columns[None, :, None, :, None, :]
    count, size = tokens(windows), tokens(window)
    return (either.to(like.dtype) * OTHER_REGION).reshape(count, 1, size, size)
