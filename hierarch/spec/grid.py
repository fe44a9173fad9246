"""Arithmetic on grids and windows, for claims (on integers) and modules (also on symbolic sizes).

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from hierarch.errors import SpecError

Pair = tuple[int, int]
"""Height, width."""
MAX_SIDE = 65_536
"""Pixels along a side of an image, at most."""
SmallMap = Literal["pad", "pad_shift", "clamp", "clamp_both"]
"""What happens to a map that is smaller than a window: see `fit`."""


def pair(value: int | Pair) -> Pair:
    """(n, n) for an integer n, which means both axes; a pair unchanged."""
    return (value, value) if isinstance(value, int) else value


def checked_size(size: int | Sequence[int]) -> Pair:
    """The (height, width) of an image. Raises `SpecError` for what is none."""
    sides = pair(size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(type(s) is int and 1 <= s <= MAX_SIDE for s in sides):
        raise SpecError(f"size {size!r}: a side should be an integer from 1 to {MAX_SIDE}")
    return sides[0], sides[1]


def ceil_div(n: int, d: int) -> int:
    """n / d, rounded up."""
    return (n + d - 1) // d


def tokens(grid: Pair) -> int:
    """Number of tokens of a grid, or of a window."""
    return math.prod(grid)


def fit(
    grid: Pair,
    window: Pair,
    shift: Pair,
    small_map: SmallMap,
    *,
    minimum: Callable[..., Any] = min,
) -> tuple[Pair, Pair]:
    """The window and the shift on a grid, by one of the published rules for small grids.

    `pad` (torchvision): a map smaller than the window is padded to it; an axis that one window
    covers is not shifted. `pad_shift` (mmdetection, detectron2, Hugging Face's SwinBackbone): as
    `pad`, but the axis is shifted. `clamp` (timm): the window shrinks to the map, axis by axis,
    and that axis is not shifted. `clamp_both` (Microsoft): once the shorter side is covered, the
    window shrinks to it on both axes and neither is shifted.
    """
    if small_map == "pad_shift":
        return window, shift
    sides = grid
    if small_map == "clamp_both":
        shorter = minimum(*grid)
        sides = (shorter, shorter)
    # one window covers the axis: a shift of 0; else there are two or more: min(s, s) = s
    (h, w), (wh, ww), (sh, sw) = sides, window, shift
    shift = (
        minimum(sh, (ceil_div(h, wh) - 1) * sh),
        minimum(sw, (ceil_div(w, ww) - 1) * sw),
    )
    if small_map != "pad":
        window = (minimum(wh, h), minimum(ww, w))
    return window, shift


def slots(window: Pair, grid: Pair) -> int:
    """Number of tokens of a grid that is padded to whole windows."""
    return math.prod(ceil_div(n, w) * w for n, w in zip(grid, window, strict=True))
