"""The base classes of mixers in which tokens see each other only within windows.

Shifted windows are masked as in Swin (Liu et al. 2021, arXiv:2103.14030, section 3.2): pad, then
shift, then mask, so that rows that were no neighbors before the shift never attend to each other.
Padding tokens are zeros that take part, as in torchvision and Hugging Face.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.attended import Row, by_offset, row_in_window
from hierarch.nn.cut import Cut, Kind, Runs, kinds, kinds_by_axis
from hierarch.spec.grid import Sides, tokens

OTHER_REGION = -100.0
"""Added, as published, to the logit of a pair of tokens that are no neighbors in the image."""
KindMasks = Mapping[Kind, Tensor | None]
"""What is added to the logits of a window of each kind: (1, heads or 1, N, N)."""


class WindowMixer(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), by windows that are independent of each other.

    A subclass says how a grid is cut, and how windows are mixed. Since windows are independent, an
    engine may mix a few of them at a time, in any order.

    >>> import torch
    >>> from hierarch.nn.cut import shifted_cut
    >>> class Mean(WindowMixer):
    ...     def cut(self, grid):
    ...         return shifted_cut(grid, (4, 4), (0, 0))
    ...
    ...     def mix(self, windows, cut, runs):
    ...         return windows.mean(1, keepdim=True).expand_as(windows)
    >>> Mean()(torch.zeros(2, 9, 7, 16)).shape
    torch.Size([2, 9, 7, 16])
    """

    @abstractmethod
    def cut(self, grid: Sides) -> Cut:
        """How a grid is cut into windows. Sizes may be symbolic (torch.compile, torch.export)."""

    @abstractmethod
    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        """(n, N, C) -> (n, N, C): some windows of `cut`, of N slots each.

        A slot without a token holds zeros. `runs` says of which kinds the windows are, in order: it
        matters to a mixer that masks, and no other. No window's output may depend on another's, nor
        on more of `cut` than its window and its shift: windows of several images may be together.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Put each token in its slot of a window, mix the windows, and take each token back.
        Windows come kind after kind."""
        batch, *grid, dim = x.shape
        cut = self.cut(tuple(grid))
        slots = functional.constant(Cut.slots, cut, batch, device=x.device)
        size = tokens(cut.window)
        empty = x.new_zeros(batch * cut.count * size, dim)
        windows = empty.index_copy(0, slots, x.reshape(-1, dim)).view(-1, size, dim)
        mixed = self.mix(windows, cut, cut.runs(batch))
        return mixed.reshape(-1, mixed.shape[-1]).index_select(0, slots).view(batch, *grid, -1)


class MaskedWindowMixer(WindowMixer):
    """A window mixer by attention, with a position bias and the mask of shifted windows.

    >>> import torch
    >>> from hierarch import load
    >>> mixer = load("swin_tiny").plan()[0].mixers[1].build(96)
    >>> masks = mixer.masks(mixer.cut((14, 14)), torch.zeros(1))
    >>> {kind: tuple(mask.shape) for kind, mask in masks.items()}[True, True]
    (1, 3, 49, 49)
    """

    @abstractmethod
    def bias(self, window: Sides) -> Tensor | None:
        """(1, heads, N, N): the position bias of a window, or None."""

    @abstractmethod
    def bias_parameters(self) -> list[nn.Parameter]:
        """All parameters that `bias` depends on."""

    def masks(self, cut: Cut, like: Tensor) -> KindMasks:
        """What is added to the attention logits of each kind of window: position bias and shift."""
        of_kinds, bias = kinds(cut.shift), self.bias(cut.window)
        if len(of_kinds) == 1:
            return {of_kinds[0]: bias}
        sizes = kinds_by_axis(cut.shift), cut.window, cut.shift, like.dtype
        regions = functional.constant(shift_mask, *sizes, device=like.device)
        masks = regions if bias is None else regions + bias
        return dict(zip(of_kinds, masks.chunk(len(of_kinds)), strict=True))

    def row(self, grid: Sides, token: int) -> Row:
        return row_in_window(self.cut(grid), token)

    def bias_by_offset(self, grid: Sides) -> Tensor | None:
        window = self.cut(grid).window
        bias = self.bias(window)
        return None if bias is None else by_offset(bias, window)


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

    >>> (shift_mask([2], [4], [1])[:, 0, 0] < 0).tolist()
    [[False, False, False, False], [False, False, False, True]]
    """
    rank = len(window)
    region = torch.zeros([1] * (2 * rank), dtype=torch.long, device=device)
    for axis, (count, size, by) in enumerate(zip(counts, window, shift, strict=True)):
        is_last = torch.arange(count, device=device) == count - 1
        joined = is_last[:, None] & (torch.arange(size, device=device) >= size - by)
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = count, size
        region = 2 * region + joined.view(shape)
    region = region.reshape(math.prod(counts), 1, math.prod(window))
    return (region[..., :, None] != region[..., None, :]).to(dtype) * OTHER_REGION
