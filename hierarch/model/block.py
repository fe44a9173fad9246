"""What all blocks have in common: one step in which tokens see each other, and the rest."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from hierarch.model.inference import unwatched
from hierarch.model.streaming import TILE, streamed
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
        self.streams = mixer.independent_windows and stage.norm.per_token
        self.tile: int | None = TILE
        """Tokens that are streamed together; None for the whole map at once."""

    @abstractmethod
    def before(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C): what the mixer reads."""

    @abstractmethod
    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(..., C), twice -> (..., C): what becomes of the input and of what the mixer made."""

    def forward(self, x: Tensor) -> Tensor:
        if self.tile and self.streams and not self.training and unwatched(x) and self._unhooked():
            return streamed(self, x, tile=self.tile)
        return self.after(x, self.mixer(self.before(x)))

    def _unhooked(self) -> bool:
        """Whether nobody looks at a module inside, who should see whole maps."""
        return not any(m._forward_hooks or m._forward_pre_hooks for m in self.modules())
