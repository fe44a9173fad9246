"""The base classes of mixers in which tokens see each other only within windows.

Shifted windows are masked as in Swin (Liu et al. 2021, arXiv:2103.14030, section 3.2): pad, then
shift, then mask, so that rows that were no neighbors before the shift never attend to each other.
Padding tokens are zeros that take part, as in torchvision and Hugging Face.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.cut import Cut, Kind, Runs, kinds, kinds_by_axis
from hierarch.spec.grid import Pair, tokens

OTHER_REGION = -100.0
"""Added, as published, to the logit of a pair of tokens that are no neighbors in the image."""
KindMasks = Mapping[Kind, Tensor | None]
"""What is added to the logits of a window of each kind: (1, heads or 1, N, N)."""


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
        """Put each token in its slot of a window, mix the windows, and take each token back.
        Windows come kind after kind."""
        batch, *grid, dim = x.shape
        cut = self.cut(cast(Pair, tuple(grid)))
        slots = functional.constant(Cut.slots, cut, batch, device=x.device)
        size = tokens(cut.window)
        empty = x.new_zeros(batch * cut.count * size, dim)
        windows = empty.index_copy(0, slots, x.reshape(-1, dim)).view(-1, size, dim)
        mixed = self.mix(windows, cut, cut.runs(batch))
        return mixed.reshape(-1, mixed.shape[-1]).index_select(0, slots).view(batch, *grid, -1)


class MaskedWindowMixer(WindowMixer):
    """A window mixer by attention, with a position bias and the mask of shifted windows."""

    @abstractmethod
    def bias(self, window: Pair) -> Tensor | None:
        """(1, heads, N, N): the position bias of a window, or None."""

    @abstractmethod
    def bias_parameters(self) -> list[nn.Parameter]:
        """All parameters that `bias` depends on."""

    def masks(self, cut: Cut, like: Tensor) -> KindMasks:
        """What is added to the attention logits of each kind of window: position bias and shift."""
        window, shift = cut.window, cut.shift
        of_kinds, bias = kinds(shift), self.bias(window)
        if len(of_kinds) == 1:
            return {of_kinds[0]: bias}
        sizes = kinds_by_axis(shift), window, shift, like.dtype
        regions = functional.constant(shift_mask, *sizes, device=like.device)
        masks = regions if bias is None else regions + bias
        return dict(zip(of_kinds, masks.chunk(len(of_kinds)), strict=True))


def shift_mask(
    counts: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    dtype: torch.dtype = torch.float32,
    *,
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
