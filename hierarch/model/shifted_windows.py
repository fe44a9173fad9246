"""Attention in windows, regular or shifted (Swin, Liu et al. 2021, arXiv:2103.14030, section 3.2).

Pads, then shifts, then masks: rows that were no neighbors before the shift never attend to each
other. Padded tokens are zeros that take part, as in torchvision and Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hierarch.model.attention import Masks
from hierarch.model.by_size import kept_on_gpu
from hierarch.model.cut import Counts, Cut, Kind, kinds, shifted_cut
from hierarch.model.gathering import gathered
from hierarch.model.inference import compiled, eager_on_gpu, unwatched
from hierarch.model.masks import aligned
from hierarch.model.memo import Memo
from hierarch.model.windows import is_zero, merge, pad, pad_to_windows, partition, roll
from hierarch.spec.base import Pair, tokens

OTHER_REGION = -100.0
"""Added, as published, to the logit of a pair of tokens that are no neighbors in the image."""
KindMasks = Mapping[Kind, Tensor | None]
"""What is added to the logits of a window of each kind: (1, heads or 1, N, N or more)."""


def in_windows(
    x: Tensor,
    attend: Callable[[Tensor, Masks], Tensor],
    *,
    window: Pair,
    shift: Pair,
    masks: KindMasks,
) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): attention in windows, then back in place.

    `attend` maps (B*nW, N, C), and what is added to their logits, to (B*nW, N, C).
    """
    b, h, w, _ = x.shape
    cut = shifted_cut((h, w), window, shift)

    def mix(windows: Tensor, counts: Counts) -> Tensor:
        return attend(windows, [(count, masks[kind]) for kind, count in counts])

    if compiled() or eager_on_gpu(x):
        return gathered(x, cut, mix)
    down, right = shift
    x = roll(pad_to_windows(x, window), (-down, -right))
    padded = (x.shape[1], x.shape[2])
    windows = partition(x, window)
    if len(masks) == 1:
        mixed = mix(windows, [(kind, windows.shape[0]) for kind in masks])
    elif torch.compiler.is_compiling():  # all sizes: must not ask whether there are any of a kind
        mixed = attend(windows, [(windows.shape[0], _mask_of_each(cut, masks, b))])
    else:
        numbers = cut.numbers(b, x.device).flatten()
        mixed = _placed(numbers.argsort(), mix(_placed(numbers, windows), cut.counts(b)))
    x = roll(merge(mixed, window, padded, batch=b), (down, right))
    return pad(x, bottom=h - padded[0], right=w - padded[1])


def _mask_of_each(cut: Cut, masks: KindMasks, batch: int) -> Tensor:
    """(B*nW, heads or 1, N, N or more): the mask of each window of a shifted grid."""
    every = torch.cat([mask for mask in masks.values() if mask is not None])
    rows, columns = (
        torch.arange(axis.count, device=every.device)
        == (axis.count if is_zero(axis.shift) else axis.count - 1)
        for axis in (cut.rows, cut.columns)
    )
    kind = rows[:, None] * (1 if is_zero(cut.shift[1]) else 2) + columns
    return every[kind.flatten().repeat(batch)]


def _placed(places: Tensor, x: Tensor) -> Tensor:
    """(n), (n, N, C) -> (n, N, C): each at its place. The gradient is a gather, and no sum."""
    return torch.empty_like(x).index_copy_(0, places, x)


def remembered_masks(
    memo: Memo,
    weights: Sequence[Tensor],
    bias: Callable[[], Tensor | None],
    window: Pair,
    shift: Pair,
    *,
    like: Tensor,
) -> KindMasks:
    """`kind_masks` of what `bias` makes of some weights; on a CPU, where only the values count,
    made once per change of a weight.

    Not so on a GPU: only comparing their numbers shows every change, and for that the processor
    would wait for the GPU.
    """

    def make() -> KindMasks:
        return kind_masks(bias(), window, shift, like=like)

    if not unwatched(like):
        return make()
    rounded_to = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    return memo.get((window, shift, like.dtype, rounded_to), weights, make)


def kind_masks(bias: Tensor | None, window: Pair, shift: Pair, *, like: Tensor) -> KindMasks:
    """The masks of a grid whose windows have this bias: (1, heads, N, N or more), or None."""
    found = kinds(shift)
    if len(found) == 1:
        return {found[0]: bias}
    regions = _regions(window, shift, dtype=like.dtype, device=like.device)
    masks = regions if bias is None else regions + bias
    return dict(zip(found, masks.chunk(len(found)), strict=True))


@kept_on_gpu
def _regions(window: Pair, shift: Pair, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(kinds, 1, N, N or more): the mask of a window of each kind."""
    rows, columns = (1 if is_zero(moved) else 2 for moved in shift)
    return aligned(shift_mask((rows, columns), window, shift, dtype=dtype, device=device))


def shift_mask(
    windows: Pair,
    window: Pair,
    shift: Pair,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(nH*nW, 1, N, N): 0 between neighbors, -100 between what only the shift brought together.

    Only the last window of an axis holds both ends of the image.
    """

    def apart(n: int, size: int, moved: int) -> Tensor:
        """(n, size, size): whether two positions of a window come from different ends."""
        end = torch.arange(size, device=device) >= size - moved
        last = torch.arange(n, device=device) == n - 1
        return last[:, None, None] & (end[:, None] ^ end[None, :])

    rows, columns = map(apart, windows, window, shift)
    either = rows[:, None, :, None, :, None] | columns[None, :, None, :, None, :]
    count, size = tokens(windows), tokens(window)
    return (either.to(dtype) * OTHER_REGION).reshape(count, 1, size, size)
