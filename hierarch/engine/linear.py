"""Linear layers, and what is computed as one, by oneDNN.

oneDNN adds the bias and, without a gradient, applies an exact GELU within the multiplication. torch
writes the bias to the output first, and reads the output again for the GELU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.engine.conditions import (
    changed,
    not_compiled,
    not_compiled_for_cpu,
    not_cpu_inference,
    not_cpu_training,
    not_fast_inference,
    not_of_type,
)
from hierarch.engine.onednn import compiled_linear, not_onednn, onednn_linear
from hierarch.engine.packing import PackedLinear
from hierarch.engine.seam import Refusal
from hierarch.engine.training import trained_linear
from hierarch.nn import functional
from hierarch.nn.layers import Mlp


def refuses_trained(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Refusal | None:
    """Takes a trainable `nn.Linear` whose input has a gradient, too."""
    return (
        not_cpu_training(x)
        or not_of_type(layer, nn.Linear)
        or (None if layer.weight.requires_grad else Refusal("a frozen weight", layer))
        or not_onednn(x, cast(Tensor, layer.weight))
    )


def run_trained(layer: nn.Linear, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return trained_linear(x, layer.weight, _sum(layer.bias, bias))


def refuses_onednn(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Refusal | None:
    return (
        not_of_type(layer, nn.Linear)
        or not_fast_inference(x)
        or not_onednn(x, cast(Tensor, layer.weight))
    )


def run_onednn(layer: nn.Linear, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return onednn_linear(x, layer.weight, _sum(layer.bias, bias))


def refuses_compiled(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Refusal | None:
    return (
        not_compiled_for_cpu(x)
        or not_of_type(layer, nn.Linear)
        or not_onednn(x, cast(Tensor, layer.weight))
    )


def run_compiled(layer: nn.Linear, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return cast(Tensor, compiled_linear(x, layer.weight, _sum(layer.bias, bias)))


def refuses_packed(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Refusal | None:
    if type(layer) is not PackedLinear:
        return Refusal("weights are not packed", layer, inapplicable=True)
    return changed(layer)


def run_packed(layer: PackedLinear, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return layer.multiply(x, _sum(layer.bias, bias))


def _sum(own: Tensor | None, added: Tensor | None) -> Tensor | None:
    """The bias of a layer with another one added to it."""
    if own is None or added is None:
        return added if own is None else own
    return own + added


# an MLP, with its GELU inside the first multiplication


def refuses_gelu(mlp: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Refusal | None:
    """Takes an `Mlp` with an exact GELU after a plain or packed linear layer, in inference."""
    if refusal := not_of_type(mlp, Mlp):
        return refusal
    assert isinstance(mlp, Mlp)
    if torch.is_grad_enabled():
        return Refusal("autograd is on")
    if refusal := not_of_type(mlp.act, nn.GELU):
        return refusal
    if mlp.act.approximate != "none":
        return Refusal("an approximate GELU", mlp.act)
    if isinstance(mlp.fc1, PackedLinear):
        return changed(mlp.fc1) or not_fast_inference(x)
    return (
        not_of_type(mlp.fc1, nn.Linear)
        or (not_fast_inference(x) and not_compiled_for_cpu(x))
        or not_onednn(x, mlp.fc1.weight)
    )


def run_gelu(mlp: Mlp, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    x = x if norm is None else norm(x)
    layer: nn.Linear | PackedLinear = mlp.fc1
    if isinstance(layer, PackedLinear):
        x = layer.multiply(x, layer.bias, "gelu")
    else:
        multiply = compiled_linear if not_fast_inference(x) else onednn_linear
        x = cast(Tensor, multiply(x, layer.weight, layer.bias, "gelu"))
    return cast(Tensor, mlp.drop(functional.linear(mlp.fc2, mlp.drop(x))))


# a convolution as large as its stride


def refuses_patches(conv: nn.Module, x: Tensor) -> Refusal | None:
    """Takes an `nn.Conv2d` over patches, in inference on a CPU and in programs for one: torch fixes
    the layout of what a convolution keeps for its gradient, so its program serves one size."""
    return (
        not_of_type(conv, nn.Conv2d)
        or not_patches(cast(nn.Conv2d, conv))
        or (not_cpu_inference(x) and _not_compiled_on_cpu(x))
    )


def not_patches(conv: nn.Conv2d) -> Refusal | None:
    """Refuses a convolution that is not a linear layer over patches side by side."""
    plain = conv.padding == (0, 0) and conv.dilation == (1, 1) and conv.groups == 1
    if plain and conv.kernel_size == conv.stride:
        return None
    return Refusal("a convolution whose kernel is not its stride", conv)


def _not_compiled_on_cpu(x: Tensor) -> Refusal | None:
    return not_compiled(x) or (None if x.device.type == "cpu" else Refusal("not on a CPU"))


def run_patches(conv: nn.Conv2d, x: Tensor) -> Tensor:
    h, w = conv.stride
    rows = rearrange(x, "b (nh h) (nw w) c -> b nh nw (c h w)", h=h, w=w)
    weight = conv.weight.flatten(1)
    return (_multiplication(rows, weight) or F.linear)(rows, weight, conv.bias)


def _multiplication(x: Tensor, weight: Tensor) -> Callable[..., Tensor] | None:
    """oneDNN's multiplication for these tensors, or None."""
    if not_onednn(x, weight):
        return None
    if not_fast_inference(x) is None:
        return onednn_linear
    return compiled_linear if not_compiled_for_cpu(x) is None else None
