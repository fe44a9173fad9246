"""How leaves start: torch's own layers, with the published initialization.

A leaf is of torch's exact type. Its `reset_parameters` draws as published, so that weights are
drawn once when a network is built, and again after `to_empty` when it was built on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import nn

Leaf = TypeVar("Leaf", bound=nn.Module)


def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """Weights from a normal of deviation 0.02 truncated at 2, and no bias (Swin's code)."""
    return _leaf(nn.Linear, _draw, in_features, out_features, bias=bias)


def conv2d(in_dim: int, dim: int, kernel_size: int, **options: Any) -> nn.Conv2d:
    """A convolution that starts as `linear` does; `options` are those of `nn.Conv2d`."""
    return _leaf(nn.Conv2d, _draw, in_dim, dim, kernel_size, **options)


def layer_norm(dim: int, *, eps: float, bias: bool, init: float = 1) -> nn.LayerNorm:
    """A layer norm whose scale starts at `init`."""
    return _leaf(nn.LayerNorm, partial(_fill, init), dim, eps=eps, bias=bias)


def reset_parameters(network: nn.Module) -> None:
    """Draw all parameters, and fill in the tables that are worked out, as when it was built.

    For a network off the meta device: `network.to_empty(device="cpu")`, then this.
    """
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None and module is not network:
            reset()


def _draw(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _fill(value: float, norm: nn.LayerNorm) -> None:
    nn.init.constant_(norm.weight, value)
    if norm.bias is not None:
        nn.init.zeros_(norm.bias)


def _leaf(cls: type[Leaf], draw: Callable[[Any], None], *args: Any, **options: Any) -> Leaf:
    """A layer of torch's that `draw` initializes, without torch drawing for it first."""
    device = torch.empty(0).device  # the default device, or that of `with torch.device(...)`
    layer = cls(*args, **options, device="meta").to_empty(device=device)
    layer.reset_parameters = cast(Any, partial(draw, layer))
    if device.type != "meta":
        draw(layer)
    return layer
