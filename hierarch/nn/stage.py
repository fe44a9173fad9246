"""A stage: a downsampling, then blocks on one grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hierarch.nn import functional
from hierarch.nn.layers import build_norm
from hierarch.spec.backbone import StagePlan


class Stage(nn.Module):
    """(B, H, W, in_dim) -> (B, h, w, dim): a downsampling, then blocks on one grid.

    `norm` is applied to the stage's map where the network returns it; the next stage sees the map
    without it.
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
            build_norm(plan.output_norm, plan.dim) if plan.output_norm else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.grad_checkpointing == "stage" and self.training:
            run = partial(functional.stage, self.downsample, self.blocks)
            return recomputed(run)(x)
        return functional.stage(self.downsample, self._blocks(), x)

    def _blocks(self) -> Iterable[Callable[[Tensor], Tensor]]:
        if self.grad_checkpointing == "block" and self.training:
            return map(recomputed, self.blocks)
        return self.blocks


def recomputed(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function, of which only the input is kept for the backward pass."""
    return partial(checkpoint, run, use_reentrant=False)
