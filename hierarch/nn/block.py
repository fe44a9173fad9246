"""What all blocks have in common: one step in which tokens see each other, and the rest."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.spec.backbone import StagePlan
from hierarch.spec.parts import MixerSpec


class Block(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): after(x, mixer(before(x))).

    `before` and `after` work on (..., C). If their modules work token by token and the mixer in
    windows, an engine may take a few windows at a time through the whole block.
    """

    def __init__(self, stage: StagePlan, mixer: MixerSpec) -> None:
        super().__init__()
        self.mixer = mixer.build(stage.dim)

    @abstractmethod
    def before(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C): the mixer's input."""

    @abstractmethod
    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(..., C), twice -> (..., C): the block's output from its input and the mixer's output."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.block(self, x)
