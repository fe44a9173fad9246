"""Base classes with the fields of mixers with heads, and of mixers in windows."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from hierarch.spec.base import Side, fault
from hierarch.spec.grid import AXES, Sides, SmallMap, fit, per_axis
from hierarch.spec.parts import MixerSpec, linear_params


def attention_params(dim: int, *, qkv_bias: bool, proj_bias: bool = True) -> int:
    """Parameters of the two linear layers of self-attention: C -> 3C and C -> C."""
    return linear_params(dim, 3 * dim, bias=qkv_bias) + linear_params(dim, dim, bias=proj_bias)


def bias_table_params(window: Sides, *, heads: int) -> int:
    """Parameters of a relative position bias: one per head and offset, (2h-1)(2w-1)."""
    return math.prod(2 * side - 1 for side in window) * heads


class HeadedSpec(MixerSpec):
    """A mixer with heads: groups of channels, each of which mixes tokens with its own weights.

    >>> from hierarch import load
    >>> load("vit_tiny_patch16").plan()[0].mixers[0].heads(192)
    3
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["head_dim"]}, {"required": ["num_heads"]}]}
    )
    one_of: ClassVar[frozenset[str]] = frozenset({"head_dim", "num_heads"})

    head_dim: Annotated[int, Strict(), Field(ge=1, le=16_384)] | None = None
    """Channels per head; give this or num_heads. One value fits stages of any width."""
    num_heads: Annotated[int, Strict(), Field(ge=1, le=16_384)] | None = None
    """Number of heads; give this or head_dim."""

    @model_validator(mode="after")
    def _head_dim_or_num_heads(self) -> Self:
        if (self.head_dim is None) == (self.num_heads is None):
            given = "neither" if self.head_dim is None else "both"
            message = f"give head_dim or num_heads; {given} given"
            raise fault(type(self).__name__, ((), message, ...))
        return self

    def heads(self, dim: int) -> int:
        """Number of heads at a width."""
        return self.num_heads or dim // (self.head_dim or dim)

    def check(self, *, dim: int) -> None:
        field = "head_dim" if self.head_dim else "num_heads"
        if dim % (divisor := getattr(self, field)):
            raise ValueError(f"dim={dim} is not divisible by {field}={divisor}")

    @classmethod
    def defaults(cls, dims: Sequence[int]) -> dict[str, Any]:
        return {"head_dim": math.gcd(32, *dims)}


class WindowedSpec(HeadedSpec):
    """A mixer in windows, shifted or not.

    >>> from hierarch import load
    >>> mixer = load("swin_tiny").plan()[0].mixers[1]
    >>> mixer.fit((56, 56)), mixer.fit((5, 9))
    (((7, 7), (3, 3)), ((7, 7), (0, 3)))
    """

    window_size: Annotated[int | Sides, Side(1, 64, axes=AXES)] = 7
    """Tokens along a side of a window, or a list of one per axis: [height, width]."""
    shift_size: Annotated[int | Sides, Side(0, 63, axes=AXES)] = 0
    """Tokens by which the windows are shifted, or a list of one per axis; as published, half the
    window, rounded down, in every second block."""
    small_map: SmallMap = "pad"
    """The rule for a map that is smaller than the window. pad, as in torchvision: it is padded, and
    an axis that one window covers is not shifted. pad_shift, as in mmdetection: it is padded, and
    shifted. clamp, as in timm: the window shrinks to the map on that axis, without a shift.
    clamp_first, as in torchvision's swin3d: as clamp, but the bias is that of the first tokens of a
    whole window. clamp_both, as in Microsoft's code: the window shrinks to the shorter side on both
    axes, without a shift."""

    @model_validator(mode="after")
    def _shift_is_smaller_than_window(self) -> Self:
        window, shift = self.window, self.shift
        if len(shift) != len(window) or any(map(operator.ge, shift, window)):
            message = f"should be smaller than window_size={self.window_size} on {len(window)} axes"
            raise fault(type(self).__name__, (("shift_size",), message, self.shift_size))
        return self

    @property
    def window(self) -> Sides:
        """Tokens along each axis of a window."""
        return per_axis(self.window_size)

    @property
    def shift(self) -> Sides:
        """Tokens by which the windows are shifted along each axis."""
        return per_axis(self.shift_size) if self.shift_size else (0,) * len(self.window)

    def fit(self, grid: Sides) -> tuple[Sides, Sides]:
        """The window and the shift on this grid."""
        return fit(grid, self.window, self.shift, self.small_map)

    def tile(self) -> Sides:
        return self.window
