"""Mixup and CutMix of the images of a batch (torchvision.transforms.v2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from hierarch.train.recipe import MixRecipe


def mixing(recipe: MixRecipe, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images (B, C, H, W) and labels (B,) -> images, and labels or shares of them (B, classes)."""
    mixers = [
        make(alpha=alpha, num_classes=classes)
        for make, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        if alpha
    ]

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not mixers or float(torch.rand(())) >= recipe.probability:
            return images, labels
        chosen = mixers[int(torch.randint(len(mixers), ()))]
        mixed: tuple[Tensor, Tensor] = chosen(images, labels)
        return mixed

    return mix
