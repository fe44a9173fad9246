"""A stage: a downsampling, then blocks on one grid, each with a step in which tokens are mixed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hierarch.nn.layers import build_norm
from hierarch.spec.grid import Sides
from hierarch.spec.plan import BlockPlan, StagePlan


class Block(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): after(x, mixer(before(x))).

    `before` and `after` work on (..., C). If their modules work token by token and the mixer in
    windows, an engine may take a few windows at a time through the whole block. `grid` is that of
    a row with tokens outside of it, for a mixer that takes it.
    """

    def __init__(self, block: BlockPlan) -> None:
        super().__init__()
        self.mixer = block.mixer.build(block.dim)
        self.takes_grid = block.mixer.takes_grid

    @abstractmethod
    def before(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C): the mixer's input."""

    @abstractmethod
    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(..., C), twice -> (..., C): the block's output from its input and the mixer's output."""

    def told(self, grid: Sides | None) -> tuple[Sides, ...]:
        """What the mixer is given beside tokens: nothing, or the grid."""
        return (grid,) if self.takes_grid and grid else ()

    def forward(self, x: Tensor, grid: Sides | None = None) -> Tensor:
        return self.after(x, self.mixer(self.before(x), *self.told(grid)))


class Stage(nn.Module):
    """(B, H, W, in_dim) -> (B, h, w, dim): a downsampling, then blocks on one grid. With `grid`, a
    row of tokens outside of the grid and of its own, (B, 1, P + h*w, dim), for blocks that take it.

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
        self.position = plan.position.build(plan.dim) if plan.position else None
        self.position_after = plan.position_after
        self.blocks = nn.ModuleList(
            block.spec.build(block, drop_path=rate)
            for block, rate in zip(plan.blocks, plan.drop_paths, strict=True)
        )
        self.norm: nn.Module = (
            build_norm(plan.output_norm, plan.dim) if plan.output_norm else nn.Identity()
        )

    @property
    def layers(self) -> list[nn.Module]:
        """The blocks, with the position embedding after as many of them as the spec says."""
        layers = list(self.blocks)
        if self.position is not None:
            layers.insert(self.position_after, self.position)
        return layers

    def layers_on(self, grid: Sides | None) -> list[Layer]:
        """The layers, told the grid where there is one to tell."""
        if grid is None:
            return [*self.layers]
        return [partial(layer, grid=grid) for layer in self.layers]

    def forward(self, x: Tensor, grid: Sides | None = None) -> Tensor:
        layers: list[Layer] = [self.downsample, *self.layers_on(grid)]
        if self.training and self.grad_checkpointing == "stage":
            layers = [keeping_input(partial(through, layers))]
        elif self.training and self.grad_checkpointing == "block":
            layers = [self.downsample, *map(keeping_input, layers[1:])]
        for layer in layers:
            x = layer(x)
        return x


Layer = Callable[[Tensor], Tensor]


def through(layers: Iterable[Layer], x: Tensor) -> Tensor:
    """The output of layers that follow each other."""
    for layer in layers:
        x = layer(x)
    return x


def keeping_input(run: Layer) -> Layer:
    """The same function, of which only the input is kept for the backward pass."""
    return partial(checkpoint, run, use_reentrant=False)
