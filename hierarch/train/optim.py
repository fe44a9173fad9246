"""The optimizer's groups of weights, and the learning rate at each step."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor
from torch.optim import AdamW, Optimizer

from hierarch.building import Backbone
from hierarch.train.muon import Together, muon
from hierarch.train.recipe import OptimizerRecipe, Recipe, ScheduleRecipe

BLOCK = re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)\.)?")


def optimizer(model: Backbone, recipe: OptimizerRecipe) -> Optimizer:
    """The recipe's optimizer, with a group for each depth, with and without weight decay.

    Raises `TrainError` where torch has no Muon.

    >>> from hierarch import build
    >>> model = build({"mixer": "pooling", "stages": [{"dim": 8, "depth": 2}]})
    >>> groups = optimizer(model, OptimizerRecipe(layer_decay=0.5)).param_groups
    >>> sorted({group["lr"] for group in groups})
    [0.000125, 0.00025, 0.0005]
    """
    groups: dict[tuple[bool, int, bool], list[Tensor]] = {}
    kept = model.no_weight_decay()
    depths = sum(stage.depth for stage in model.spec.plan())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in kept
            depth = depth_of(model, name) if recipe.layer_decay < 1 else depths + 1
            hidden = recipe.type == "muon" and decays and is_hidden(name, parameter)
            groups.setdefault((hidden, depth, decays), []).append(parameter)

    def grouped(of_hidden: bool) -> list[dict[str, Any]]:
        return [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "lr": recipe.lr * recipe.layer_decay ** (depths + 1 - depth),
            }
            for (hidden, depth, decays), parameters in groups.items()
            if hidden == of_hidden
        ]

    adam = AdamW(grouped(False), betas=recipe.betas, eps=recipe.eps)
    if not grouped(True):
        return adam
    return Together([muon(grouped(True), momentum=recipe.momentum), adam])


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether a weight is a matrix inside a block: none of stem, downsamplings and head, and no
    kernel of a convolution."""
    found = BLOCK.match(name)
    return found is not None and found[2] is not None and parameter.ndim == 2


def depth_of(model: Backbone, name: str) -> int:
    """How deep a parameter is: 0 in the stem, 1 in the first block, one more after the last one.

    A stage's downsampling is as deep as its first block, and its norm as its last one.
    """
    found = BLOCK.match(name)
    depths = [stage.depth for stage in model.spec.plan()]
    if found is None:
        return (
            0
            if name.startswith(("stem.", "position_embedding.", "extra_tokens."))
            else sum(depths) + 1
        )
    stage, block = int(found[1]), found[2]
    if block is not None:
        within = int(block)
    else:
        within = depths[stage] - 1 if name.startswith(f"stages.{stage}.norm.") else 0
    return 1 + sum(depths[:stage]) + within


def rate(
    recipe: ScheduleRecipe, *, peak: float, steps: int, steps_per_epoch: int, step: int
) -> float:
    """The learning rate at a step, from 0, of a group that warms up to `peak`."""
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.warmup_lr + (peak - recipe.warmup_lr) * step / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return recipe.min_lr + (peak - recipe.min_lr) * (1 + math.cos(math.pi * done)) / 2


class Schedule:
    """The learning rate of every group at any step, in proportion to its own peak.

    It has no state: an optimizer's groups start with their peaks, which it keeps.
    """

    def __init__(
        self, optimizer: Optimizer, recipe: Recipe, *, steps: int, steps_per_epoch: int
    ) -> None:
        self.optimizer, self.recipe = optimizer, recipe
        self.timing = {"steps": steps, "steps_per_epoch": steps_per_epoch}
        self.peaks: list[float] = [group["lr"] for group in optimizer.param_groups]

    def set(self, step: int) -> float:
        """Set the rates of a step, from 0, and return the highest."""
        peak = self.recipe.optimizer.lr
        factor = rate(self.recipe.schedule, peak=peak, step=step, **self.timing) / peak
        for group, own in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = own * factor
        return factor * max(self.peaks)
