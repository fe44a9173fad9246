"""Attention in windows, regular or shifted (Swin, Liu et al. 2021, arXiv:2103.14030, section 3.2).

Pads, then shifts, then masks: rows that were no neighbors before the shift never attend to each
other. Padded tokens are zeros that take part, as in torchvision and Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hierarch.model.attention import Masks
from hierarch.model.cut import Kind, apart_mask, kinds
from hierarch.model.windows import is_zero, merge, pad, pad_to_multiple, partition, roll
from hierarch.spec.base import Pair, tokens

OTHER_REGION = -100.0
"""Added, as published, to the logit of a pair of tokens that are no neighbors in the image."""


def in_windows(
    x: Tensor,
    attend: Callable[[Tensor, Masks], Tensor],
    *,
    window: Pair,
    shift: Pair,
    bias: Tensor | None,
) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): attention in windows, then back in place.

    `attend` maps (B*nW, N, C), and what is added to their logits, to (B*nW, N, C). `bias`,
    (1, heads, N, N), is that of every window.
    """
    _, h, w, _ = x.shape
    down, right = shift
    x = roll(pad_to_multiple(x, window), (-down, -right))
    padded = (x.shape[1], x.shape[2])
    if all(map(is_zero, shift)):
        windows = partition(x, window)
        x = merge(attend(windows, [(windows.shape[0], bias)]), window, padded)
    elif not torch.compiler.is_compiling():
        x = _by_kind(x, attend, window, shift, kind_masks(bias, window, shift, like=x))
    else:  # sizes may be symbolic, and are not branched on
        windows = partition(x, window)
        regions = shift_mask(
            (padded[0] // window[0], padded[1] // window[1]), window, shift, like=x
        )
        mask = (regions if bias is None else regions + bias).repeat(x.shape[0], 1, 1, 1)
        x = merge(attend(windows, [(windows.shape[0], mask)]), window, padded)
    x = roll(x, (down, right))
    return pad(x, bottom=h - padded[0], right=w - padded[1])


def _by_kind(
    x: Tensor,
    attend: Callable[[Tensor, Masks], Tensor],
    window: Pair,
    shift: Pair,
    masks: dict[Kind, Tensor],
) -> Tensor:
    """Attention in a shifted grid whose windows are put in the order of their kinds."""
    rows, columns = (
        _sides(n, side, moved) for n, side, moved in zip(x.shape[1:3], window, shift, strict=True)
    )
    parts = {
        (last_row, last_column): x[:, row, column]
        for last_row, row in rows
        for last_column, column in columns
    }
    windows = [partition(part, window) for part in parts.values()]
    counts = [len(part) for part in windows]
    held = [(n, masks[kind]) for kind, n in zip(parts, counts, strict=True)]
    mixed = torch.split(attend(torch.cat(windows), held), counts)
    merged = iter(
        merge(part, window, (like.shape[1], like.shape[2]))
        for part, like in zip(mixed, parts.values(), strict=True)
    )
    return torch.cat([torch.cat([next(merged) for _ in columns], dim=2) for _ in rows], dim=1)


def _sides(size: int, window: int, shift: int) -> list[tuple[bool, slice]]:
    """An axis without its last window, and that window; which of them is the last."""
    if not shift:
        return [(False, slice(None))]
    end = (True, slice(size - window, size))
    return [(False, slice(0, size - window)), end] if size > window else [end]


def kind_masks(
    bias: Tensor | None, window: Pair, shift: Pair, *, like: Tensor
) -> dict[Kind, Tensor]:
    """What to add to the logits of a window of each kind: (1, heads or 1, N, N)."""
    masks = {}
    for kind in kinds(shift):
        apart = apart_mask(window, shift, kind).to(like.device)
        mask = (apart.to(like.dtype) * OTHER_REGION)[None, None]
        masks[kind] = mask if bias is None else mask + bias
    return masks


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
