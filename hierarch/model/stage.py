"""A stage: a downsampling, then blocks on one grid."""

from __future__ import annotations

from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hierarch.model.block import Block
from hierarch.model.inference import compiles_inference, is_hooked, is_hooked_inside
from hierarch.model.streaming import streamed, threads_of
from hierarch.model.windows import is_known
from hierarch.spec.backbone import StagePlan

PART = 2 * 56 * 56 * 96 * 4
"""Bytes of a map that a program takes through a stage's blocks together, at least: two images of
224x224 in Swin-T's first stage. Measured: what there is of more between two operators leaves the
caches, and is memory that the system has to clear where one tensor has over 32 MiB."""
MOST = 4
"""Parts of a map."""


class Stage(nn.Module):
    """(B, H, W, in_dim) -> (B, h, w, dim): a downsampling, then blocks on one grid.

    `norm` is the norm of the stage's map where the network returns it; it is not part of what the
    next stage sees.
    """

    def __init__(self, plan: StagePlan) -> None:
        super().__init__()
        self.grad_checkpointing: Literal["block", "stage"] | None = None
        """What is recomputed as one in the backward pass, rather than kept."""
        self.downsample = (
            plan.downsample.build(plan.in_dim, plan.dim) if plan.downsample else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            plan.block.build(plan, mixer, drop_path=rate)
            for mixer, rate in zip(plan.mixers, plan.drop_paths, strict=True)
        )
        self.norm: nn.Module = (
            plan.output_norm.build(plan.dim) if plan.output_norm else nn.Identity()
        )

    def forward(self, x: Tensor, *, over: bool = False) -> Tensor:
        """`over`: nobody else wants x, which inference may write over."""
        if self.grad_checkpointing == "stage" and self.training:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x, over=over and not is_hooked(self))

    def _forward(self, x: Tensor, *, over: bool = False) -> Tensor:
        given, x = x, self.downsample(x)
        if self.streams(x):
            blocks = cast(list[Block], list(self.blocks))
            fresh = is_fresh(x, given, self.downsample, kept=not over)
            return streamed(blocks, x, threads=threads_of(given), over=fresh)
        parts = self._parts(x)
        if parts > 1:
            return torch.cat([self._through(images) for images in x.tensor_split(parts)])
        return self._through(x)

    def _parts(self, x: Tensor) -> int:
        """Into how many a program takes the images apart, of which each part goes through all
        blocks alone. It is longer for each: hence no more than `MOST`."""
        if self.training or not compiles_inference(x) or is_hooked_inside(self.blocks):
            return 1

        def are_enough(parts: int) -> bool:
            size = prod(x.shape) * x.element_size()
            return is_known(size >= parts * PART) and is_known(x.shape[0] >= parts)

        return next(filter(are_enough, range(MOST, 1, -1)), 1)

    def _through(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.grad_checkpointing == "block" and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def streams(self, x: Tensor) -> bool:
        """Whether every block takes this input a few windows at a time."""
        return all(isinstance(block, Block) and block.streams(x) for block in self.blocks)


def is_fresh(made: Tensor, given: Tensor, *makers: nn.Module, kept: bool = True) -> bool:
    """Whether nobody else has what modules made of what they were given, which is `kept` or not."""
    memory, other = (one.untyped_storage().data_ptr() for one in (made, given))
    return not is_hooked_inside(*makers) and (memory != other or not kept)
