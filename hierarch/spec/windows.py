"""Base classes with the fields of mixers with heads, and of mixers in windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from hierarch.spec.base import Side, fault
from hierarch.spec.grid import Pair, SmallMap, fit, pair
from hierarch.spec.parts import MixerSpec, linear_params


def attention_params(dim: int, *, qkv_bias: bool, proj_bias: bool = True) -> int:
    """Parameters of the two linear layers of self-attention: C -> 3C and C -> C."""
    return linear_params(dim, 3 * dim, bias=qkv_bias) + linear_params(dim, dim, bias=proj_bias)


def bias_table_params(window: Pair, *, heads: int) -> int:
    """Parameters of a relative position bias: one per head and offset, (2h-1)(2w-1)."""
    h, w = window
    return (2 * h - 1) * (2 * w - 1) * heads


class HeadedSpec(MixerSpec):
    """A mixer with heads: groups of channels, each of which mixes tokens with its own weights."""

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
            raise fault(
                type(self).__name__, ((), f"give head_dim or num_heads; {given} given", ...)
            )
        return self

    def heads(self, dim: int) -> int:
        """Number of heads at a width."""
        return self.num_heads or dim // (self.head_dim or dim)

    def check(self, *, dim: int) -> None:
        field, divisor = (
            ("head_dim", self.head_dim) if self.head_dim else ("num_heads", self.num_heads)
        )
        if divisor and dim % divisor:
            raise ValueError(f"dim={dim} is not divisible by {field}={divisor}")

    @classmethod
    def defaults(cls, dims: Sequence[int]) -> dict[str, Any]:
        return {"head_dim": math.gcd(32, *dims)}


class WindowedSpec(HeadedSpec):
    """A mixer in windows, shifted or not."""

    window_size: Annotated[int | Pair, Side(1, 64)] = 7
    """Tokens along a side of a window, or [height, width]."""
    shift_size: Annotated[int | Pair, Side(0, 63)] = 0
    """Tokens by which the windows are shifted, or [height, width]; as published, half the window,
    rounded down, in every second block."""
    small_map: SmallMap = "pad"
    """The rule for a map that is smaller than the window. pad, as in torchvision: it is padded, and
    an axis that one window covers is not shifted. pad_shift, as in mmdetection: it is padded, and
    shifted. clamp, as in timm: the window shrinks to the map on that axis, without a shift.
    clamp_both, as in Microsoft's code: the window shrinks to the shorter side on both axes, without
    a shift."""

    @model_validator(mode="after")
    def _shift_is_smaller_than_window(self) -> Self:
        for shift, window in zip(pair(self.shift_size), pair(self.window_size), strict=True):
            if shift >= window:
                message = f"should be smaller than window_size={window}"
                raise fault(type(self).__name__, (("shift_size",), message, shift))
        return self

    def fit(self, grid: Pair) -> tuple[Pair, Pair]:
        """The window and the shift on this grid."""
        return fit(grid, pair(self.window_size), pair(self.shift_size), self.small_map)

    def tile(self) -> Pair:
        return pair(self.window_size)
