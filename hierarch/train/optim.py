"""AdamW by groups, and the learning rate at each step."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from hierarch.building import Backbone
from hierarch.train.recipe import OptimizerRecipe, Recipe, ScheduleRecipe

BLOCK = re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)\.)?")


def optimizer(model: Backbone, recipe: OptimizerRecipe) -> AdamW:
    """AdamW with a group for each depth, with and without weight decay."""
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    kept = model.no_weight_decay()
    depths = sum(stage.depth for stage in model.spec.plan())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in kept
            depth = depth_of(model, name) if recipe.layer_decay < 1 else depths + 1
            groups.setdefault((depth, decays), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "lr": recipe.lr * recipe.layer_decay ** (depths + 1 - depth),
            }
            for (depth, decays), parameters in groups.items()
        ],
        betas=recipe.betas,
        eps=recipe.eps,
    )


def depth_of(model: Backbone, name: str) -> int:
    """How deep a parameter is: 0 in the stem, 1 in the first block, one more after the last one.

    A stage's downsampling is as deep as its first block, and its norm as its last one.
    """
    found = BLOCK.match(name)
    depths = [stage.depth for stage in model.spec.plan()]
    if found is None:
        return 0 if name.startswith(("stem.", "position_embedding.")) else sum(depths) + 1
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


def schedule(optimizer: AdamW, recipe: Recipe, *, steps: int, steps_per_epoch: int) -> LambdaLR:
    """The learning rate of every group over time, in proportion to its own peak."""
    peak = recipe.optimizer.lr

    def factor(step: int) -> float:
        timing = {"steps": steps, "steps_per_epoch": steps_per_epoch, "step": step}
        return rate(recipe.schedule, peak=peak, **timing) / peak

    return LambdaLR(optimizer, factor)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of the weights; of a network's own tables, the last values."""
    return AveragedModel(model, multi_avg_fn=_moving(decay))


def _moving(decay: float) -> Callable[..., None]:
    def update(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        n = float(count)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value.to(average.dtype), weight)

    return update
