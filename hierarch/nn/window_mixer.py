"""The base class of mixers in which tokens see each other only within windows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.cut import Cut, Runs
from hierarch.spec.grid import Pair


class WindowMixer(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), by windows that are independent of each other.

    A subclass says how a grid is cut, and how windows are mixed. Since windows are independent, an
    engine may mix a few of them at a time, in any order.
    """

    @abstractmethod
    def cut(self, grid: Pair) -> Cut:
        """How a grid is cut into windows. Sizes may be symbolic: see `hierarch.nn.padding`."""

    @abstractmethod
    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        """(n, N, C) -> (n, N, C): some windows of `cut`, of N slots each.

        A slot without a token holds zeros. `runs` says of which kinds the windows are, in order: it
        matters to a mixer that masks, and no other. No window's output may depend on another's.
        """

    def forward(self, x: Tensor) -> Tensor:
        return functional.windows(self, x)


@runtime_checkable
class MaskedWindows(Protocol):
    """A window mixer that adds a mask of its own to the attention logits of a window."""

    def bias(self, window: Pair) -> Tensor | None:
        """(1, heads, N, N): the position bias of a window, or None."""

    def bias_parameters(self) -> list[nn.Parameter]:
        """All parameters that `bias` depends on."""
