"""Arithmetic on grids and windows, for claims (on integers) and modules (also on symbolic sizes).

Nothing here imports torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from hierarch.errors import SpecError

Sides = tuple[int, ...]
"""A length along each axis: (height, width) of an image, (frames, height, width) of a video or a
volume, (length,) of a signal."""
AXES = {1: ("length",), 2: ("height", "width"), 3: ("frames", "height", "width")}
"""Names of the axes, for each number of them."""
MAX_SIDE = 65_536
"""Pixels along a side of an image, at most."""
SmallMap = Literal["pad", "pad_shift", "clamp", "clamp_first", "clamp_both"]
"""What happens to a map that is smaller than a window: see `fit`."""


def per_axis(value: int | Sides) -> Sides:
    """(n, n) for an integer n, which means both axes of an image; others unchanged.

    >>> per_axis(7), per_axis((4, 8)), per_axis((8, 7, 7))
    ((7, 7), (4, 8), (8, 7, 7))
    """
    return (value, value) if isinstance(value, int) else value


def checked_size(size: int | Sequence[int], *, axes: int = 2) -> Sides:
    """The size of an image, or of what has as many axes. Raises `SpecError` for what is none."""
    sides = (size,) * axes if isinstance(size, int) else tuple(size)
    if not all(type(s) is int and 1 <= s <= MAX_SIDE for s in sides):
        raise SpecError(f"size {size!r}: a side should be an integer from 1 to {MAX_SIDE}")
    if len(sides) != axes:
        raise SpecError(f"size {size!r}: the network has {axes} axes, so a size has {axes} sides")
    return sides


def ceil_div(n: int, d: int) -> int:
    """n / d, rounded up."""
    return (n + d - 1) // d


def tokens(grid: Sides) -> int:
    """Number of tokens of a grid, or of a window.

    >>> tokens((56, 56))
    3136
    """
    return math.prod(grid)


def fit(
    grid: Sides,
    window: Sides,
    shift: Sides,
    small_map: SmallMap,
    *,
    minimum: Callable[..., Any] = min,
) -> tuple[Sides, Sides]:
    """The window and the shift on a grid, by one of the published rules for small grids.

    `pad` (torchvision): a map smaller than the window is padded to it; an axis that one window
    covers is not shifted. `pad_shift` (mmdetection, detectron2, Hugging Face's SwinBackbone): as
    `pad`, but the axis is shifted. `clamp` and `clamp_first` (timm, torchvision's swin3d): the
    window shrinks to the map, axis by axis, and that axis is not shifted. `clamp_both` (Microsoft):
    once the shortest side is covered, the window shrinks to it on all axes and none is shifted.

    >>> fit((4, 56, 56), (8, 7, 7), (4, 3, 3), "clamp")
    ((4, 7, 7), (0, 3, 3))
    """
    if small_map == "pad_shift":
        return window, shift
    sides = (functools.reduce(minimum, grid),) * len(grid) if small_map == "clamp_both" else grid
    along = list(zip(sides, window, shift, strict=True))
    # one window covers the axis: a shift of 0; else there are two or more: min(s, s) = s
    shift = tuple(minimum(s, (ceil_div(n, w) - 1) * s) for n, w, s in along)
    if small_map != "pad":
        window = tuple(minimum(w, n) for n, w, _ in along)
    return window, shift


def times(sides: Sides, factors: Sides) -> Sides:
    """Each side times the factor of its axis.

    >>> times((2, 4, 4), (1, 2, 2))
    (2, 8, 8)
    """
    return tuple(side * factor for side, factor in zip(sides, factors, strict=True))


def slots(window: Sides, grid: Sides) -> int:
    """Number of tokens of a grid that is padded to whole windows.

    >>> slots((7, 7), (57, 56))
    3528
    """
    return math.prod(ceil_div(n, w) * w for n, w in zip(grid, window, strict=True))
