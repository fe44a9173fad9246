"""What was worked out from some weights, kept until one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


class Memo:
    """Holds one value. A weight has changed if it differs from the copy that is kept of it: no
    way of writing to it goes unseen. A copy of a memo, and a pickled one, is empty."""

    def __init__(self) -> None:
        self._held: tuple[Hashable, Sequence[Tensor], Any] | None = None

    def get(self, key: Hashable, weights: Sequence[Tensor], make: Callable[[], Value]) -> Value:
        """What `make` returns, or returned when it was last called with this key and weights."""
        held = self._held  # read once: another thread may put its own there
        if held is not None and held[0] == key and _same(held[1], weights):
            value: Value = held[2]
            return value
        value = make()
        self._held = (key, [weight.detach().clone() for weight in weights], value)
        return value

    def __reduce__(self) -> tuple[type[Memo], tuple[()]]:
        return Memo, ()


def _same(copies: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    return all(
        copy.dtype == weight.dtype
        and copy.device == weight.device
        and copy.shape == weight.shape
        and torch.equal(copy, weight)
        for copy, weight in zip(copies, weights, strict=True)
    )
