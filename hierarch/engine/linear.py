"""Linear layers, and what is computed as one, by oneDNN.

oneDNN adds the bias and, without a gradient, applies an exact GELU within the multiplication. torch
writes the bias to the output first, and reads the output again for the GELU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.engine.conditions import (
    changed,
    not_a_convolution,
    not_compiled,
    not_compiled_for_cpu,
    not_cpu_inference,
    not_cpu_training,
    not_fast_inference,
    not_of_type,
)
from hierarch.engine.onednn import (
    compiled_linear,
    inference_linear,
    not_faster,
    not_onednn,
    onednn_linear,
)
from hierarch.engine.packing import PackedLinear
from hierarch.engine.seam import Refusal, way
from hierarch.engine.training import trained_linear
from hierarch.nn import functional
from hierarch.nn.layers import Mlp
from hierarch.nn.padding import patch_rows


def multiplication(x: Tensor) -> tuple[Callable[..., Tensor], Refusal | None]:
    """oneDNN's multiplication for a call like this one, and what refuses it: with autograd off,
    with autograd on, or in a program of torch.compile."""
    refusal = not_fast_inference(x)
    if torch.compiler.is_compiling():
        return (compiled_linear, not_compiled_for_cpu(x)) if refusal else (onednn_linear, None)
    if refusal and torch.is_grad_enabled():
        return trained_linear, not_cpu_training(x)
    return inference_linear, refusal


def refuses_onednn(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Refusal | None:
    """Takes a plain `nn.Linear`, in training one of which input and weight both have a gradient;
    and a packed one, which unpacks its weight where oneDNN cannot multiply."""
    if type(layer) is PackedLinear:
        return changed(layer)
    if refusal := not_of_type(layer, nn.Linear):
        return refusal
    multiply, refusal = multiplication(x)
    weight = cast(nn.Parameter, layer.weight)
    if multiply is trained_linear and not weight.requires_grad:
        return Refusal("a frozen weight", layer)
    return refusal or not_onednn(x, weight) or not_faster()


@way("oneDNN", refuses_onednn)
def run_onednn(layer: nn.Linear | PackedLinear, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return _product(layer, x, _sum(layer.bias, bias))


def _product(
    layer: nn.Linear | PackedLinear, x: Tensor, bias: Tensor | None, *activation: str
) -> Tensor:
    if isinstance(layer, PackedLinear):
        return layer.multiply(x, bias, *activation)
    multiply, _ = multiplication(x)
    return multiply(x, layer.weight, bias, *activation)


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
    return refuses_onednn(mlp.fc1, x) or not_faster()


@way("GELU in the multiplication", refuses_gelu)
def run_gelu(mlp: Mlp, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    x = x if norm is None else norm(x)
    x = _product(mlp.fc1, x, mlp.fc1.bias, "gelu")
    return cast(Tensor, mlp.drop(functional.linear(mlp.fc2, mlp.drop(x))))


# a convolution as large as its stride


def refuses_patches(conv: nn.Module, x: Tensor) -> Refusal | None:
    """Takes a convolution over patches, in inference on a CPU and in programs for one: torch fixes
    the layout of what a convolution keeps for its gradient, so its program serves one size."""
    return (
        not_a_convolution(conv)
        or not_patches(conv)
        or (not_cpu_inference(x) and _not_compiled_on_cpu(x))
    )


def not_patches(conv: nn.Module) -> Refusal | None:
    """Refuses a convolution that is not a linear layer over patches side by side."""
    conv = cast(nn.Conv2d, conv)
    plain = not any(conv.padding) and {*conv.dilation} == {1} and conv.groups == 1
    if plain and conv.kernel_size == conv.stride:
        return None
    return Refusal("a convolution whose kernel is not its stride", conv)


def _not_compiled_on_cpu(x: Tensor) -> Refusal | None:
    return not_compiled(x) or (None if x.device.type == "cpu" else Refusal("not on a CPU"))


@way("a multiplication", refuses_patches)
def run_patches(conv: nn.Conv2d, x: Tensor) -> Tensor:
    rows = patch_rows(x, conv.stride, channels_first=True)
    weight = conv.weight.flatten(1)
    multiply, refusal = multiplication(rows)
    if refusal or not_onednn(rows, weight) or not_faster():
        multiply = F.linear
    return multiply(rows, weight, conv.bias)
