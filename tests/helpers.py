"""What several tests share: a small network, and weights of which none is left at its start."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def perturb(module: nn.Module, *, seed: int = 0, std: float = 0.05) -> Any:
    """The module in eval mode, with noise added in place to every parameter.

    Biases start at 0 and norms at 1, where a mistake in carrying them over would not show.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * std
    return module.eval()


def tiny(mixer: str = "window_attention", **fields: Any) -> dict[str, Any]:
    """A spec of three stages with regular and shifted windows, small enough for any test."""
    regular = {"type": mixer, "head_dim": 4, "window_size": 4}
    return {
        "name": "tiny",
        "mixer": [regular, regular | {"shift_size": 2}],
        "stages": [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 3}, {"dim": 24, "depth": 2}],
        "mlp_ratio": 2,
        **fields,
    }
