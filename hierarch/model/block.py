"""What all blocks have in common: one step in which tokens see each other, and the rest."""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from hierarch.model.gathering import gathered
from hierarch.model.inference import eager, is_hooked_inside, unwatched
from hierarch.model.streaming import TileSize, WindowMixer, streamed, threads_of
from hierarch.spec.backbone import StagePlan
from hierarch.spec.parts import MixerSpec


class Block(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): after(x, mixer(before(x))).

    `before` and `after` work on each token alone, so that a mixer whose windows are independent
    can be taken through the whole block a few windows at a time.
    """

    def __init__(self, stage: StagePlan, mixer: MixerSpec) -> None:
        super().__init__()
        self.mixer = mixer.build(stage.dim)
        self.in_windows = mixer.independent_windows and stage.norm.per_token
        self.tile: TileSize = "auto"

    @abstractmethod
    def before(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C): what the mixer reads."""

    @abstractmethod
    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(..., C), twice -> (..., C): what becomes of the input and of what the mixer made."""

    def forward(self, x: Tensor) -> Tensor:
        if self.streams(x):
            return streamed([self], x, threads=threads_of(x))
        read = self.before(x)
        if self._gathers(x):
            mixer = cast(WindowMixer, self.mixer)
            cut = mixer.cut((x.shape[1], x.shape[2]))
            mixed = gathered(read, cut, lambda windows, counts: mixer.mix(windows, cut, counts))
            return self.after(x, mixed)
        return self.after(x, self.mixer(read))

    def streams(self, x: Tensor) -> bool:
        """Whether this input is taken through the block a few windows at a time."""
        return (
            self.in_windows
            and self.tile is not None
            and not self.training
            and unwatched(x)
            and isinstance(self.mixer, WindowMixer)
            and not is_hooked_inside(self)
        )

    def _gathers(self, x: Tensor) -> bool:
        """Whether its windows are taken out of this input in one step, for a gradient."""
        return (
            self.in_windows
            and torch.is_grad_enabled()
            and eager(x)
            and isinstance(self.mixer, WindowMixer)
            and not is_hooked_inside(self.mixer)
        )
