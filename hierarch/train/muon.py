"""Muon for some weights, and another optimizer for all others, as one (torch.optim.Muon)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.optim import Optimizer

from hierarch.errors import TrainError


def muon(groups: list[dict[str, Any]], *, momentum: float) -> Optimizer:
    """torch's Muon, with steps as large as AdamW's. Raises `TrainError` where torch has none."""
    if not hasattr(torch.optim, "Muon"):
        raise TrainError(
            f"optimizer.type muon needs torch 2.9 or newer, and this is {torch.__version__}: "
            "set it to adamw"
        )
    return torch.optim.Muon(groups, momentum=momentum, adjust_lr_fn="match_rms_adamw")


class Together(Optimizer):
    """Optimizers of different weights, with their groups, their state and their steps in one."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = list(parts)
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no loss comes back
        assert closure is None
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let the parts see and change the groups and the state of the whole."""
        ends = accumulate(len(part.param_groups) for part in self.parts)
        for part, end in zip(self.parts, ends, strict=True):
            part.param_groups = self.param_groups[end - len(part.param_groups) : end]
            part.state = self.state
