"""What one pixel attends to: the attention weights of its token, in each head, on the grid.

They are the network's own. It runs as it is, and where a mixer calls torch's attention, that is
called once more with the same queries, keys, mask and scale, and one-hot vectors for values: the
output is then the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hierarch.complexity.architecture import summary
from hierarch.errors import PlotError
from hierarch.nn.attended import PADDING, Attends, Row
from hierarch.nn.backbone import Backbone
from hierarch.plots.networks import mixers_of, stage_numbers
from hierarch.spec.grid import Sides


@dataclass(frozen=True)
class Attended:
    """What one token of a block attends to.

    >>> from hierarch.plots.networks import picture, subject
    >>> looked = subject("swin_tiny")
    >>> shown = picture(None, looked.spec, size=64)
    >>> row = attended(looked.model, shown.images, (0, 0), stages=[0])[0]
    >>> row.weights.shape, int(row.keys.sum())
    (torch.Size([3, 16, 16]), 49)
    """

    stage: int
    block: int
    mixer: str
    token: Sides
    """Row and column on the stage's grid."""
    weights: Tensor
    """(heads, h, w): of each token of the grid."""
    padding: Tensor
    """(heads): of the keys that are no token. With `weights` it sums to 1."""
    keys: Tensor
    """(h, w): the tokens among the keys, those that a mask keeps apart included."""


def attended(
    model: Backbone, images: Tensor, pixel: Sides, *, stages: Sequence[int] | None = None
) -> tuple[Attended, ...]:
    """What a pixel's token attends to in each block by attention, of one image (1, C, H, W).

    Without `stages`, in all of them. Raises `PlotError` for a pixel outside of the image, and where
    no block is by attention.

    >>> from hierarch.plots.networks import picture, subject
    >>> looked = subject("swin_tiny")
    >>> shown = picture(None, looked.spec, size=64)
    >>> first, second = attended(looked.model, shown.images, (10, 20), stages=[0])
    >>> first.token, first.weights.shape, int(first.keys.sum())
    ((2, 5), torch.Size([3, 16, 16]), 49)
    """
    size: Sides = (images.shape[-2], images.shape[-1])
    if not all(0 <= at < side for at, side in zip(pixel, size, strict=True)):
        raise PlotError(
            f"pixel {pixel[0]},{pixel[1]} is outside of the picture: rows are 0 to {size[0] - 1}, "
            f"columns 0 to {size[1] - 1}"
        )
    wanted = stage_numbers(model.spec, stages)
    mixers: dict[tuple[int, int], nn.Module] = {
        at: mixer for at, mixer in mixers_of(model, wanted).items() if isinstance(mixer, Attends)
    }
    plans, strides = model.spec.plan(), model.spec.strides()
    if not mixers:
        others = ", ".join(sorted({mixer.type for i in wanted for mixer in plans[i].mixers}))
        where = f"stages {wanted}" if stages is not None else "the network"
        raise PlotError(
            f"{model.spec.name}: no block of {where} attends from token to token; its mixers: "
            f"{others or 'none'}"
        )
    found, inputs = [], _inputs(model, images, mixers)
    for (i, j), mixer in mixers.items():
        _, height, width, _ = inputs[i, j].shape
        # a convolution may leave pixels at the end that no token begins at
        row = min(pixel[0] // strides[i][0], height - 1)
        column = min(pixel[1] // strides[i][1], width - 1)
        of = cast(Attends, mixer).row((height, width), row * width + column)
        weights, inside = _weights(mixer, inputs[i, j], of), of.keys != PADDING
        placed = weights.new_zeros(len(weights), height * width)
        placed[:, of.keys[inside]] = weights[:, inside]
        keys = torch.zeros(height * width, dtype=torch.bool)
        keys[of.keys[inside]] = True
        found.append(
            Attended(
                stage=i,
                block=j,
                mixer=summary(plans[i].mixers[j]),
                token=(row, column),
                weights=placed.view(-1, height, width),
                padding=weights[:, ~inside].sum(1),
                keys=keys.view(height, width),
            )
        )
    return tuple(found)


def _inputs(
    model: Backbone, images: Tensor, mixers: Mapping[tuple[int, int], nn.Module]
) -> dict[tuple[int, int], Tensor]:
    """What enters each of some mixers, by stage and block."""
    kept: dict[tuple[int, int], Tensor] = {}

    def keep(at: tuple[int, int], mixer: nn.Module, args: tuple[Tensor]) -> None:
        kept[at] = args[0]

    hooks = [mixer.register_forward_pre_hook(partial(keep, at)) for at, mixer in mixers.items()]
    try:
        with torch.no_grad():
            model.maps(images, {i for i, _ in mixers})
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _weights(mixer: nn.Module, x: Tensor, row: Row) -> Tensor:
    """(heads, M): the attention weights of one token, from the mixer's own call of attention."""
    called = _Attention(row)
    with torch.no_grad(), called:
        mixer(x)
    assert called.weights is not None, f"{type(mixer).__name__} calls no attention of torch"
    return called.weights


class _Attention(TorchFunctionMode):
    """While entered, keeps the weights of one query where torch's attention is called."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row
        self.weights: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.weights = self._of_query(*args, **kwargs or {})
        return func(*args, **kwargs or {})

    def _of_query(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None
    ) -> Tensor:
        at, keys = self.row.query, k.shape[-2]
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*q.shape[:-1], keys)[at]
        one_hot = torch.eye(keys, dtype=v.dtype).expand(*k[at[:2]].shape[:2], -1, -1)
        weights: Tensor = F.scaled_dot_product_attention(
            q[at], k[at[:2]], one_hot, attn_mask=attn_mask, scale=scale
        )
        return weights.reshape(-1, keys)
