"""Inference on a CPU, when nothing but the result is wanted: what may then be done differently."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad


def unwatched(x: Tensor) -> bool:
    """Whether only the values count: on a CPU, with no gradient of either mode, no trace, no
    compiler, no vmap, and no mode that looks at each operator."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
    )


def linear(x: Tensor, layer: nn.Linear, activation: nn.Module | None = None) -> Tensor:
    """(..., C) -> (..., D): a linear layer, and what follows it.

    Where only the values count, by oneDNN's matrix multiplication with the bias and an exact GELU
    in it: without it torch first writes the bias to the output, and reads it again for the GELU.
    """
    fused = {None: "none", "gelu": "gelu"}.get(_name(activation))
    if fused and _is_onednns(x, layer):
        rows = x.reshape(-1, x.shape[-1])
        multiply = torch.ops.mkldnn._linear_pointwise
        out: Tensor = multiply(rows, layer.weight, layer.bias, fused, [], "none")
        return out.view(*x.shape[:-1], out.shape[-1])
    out = F.linear(x, layer.weight, layer.bias)
    return out if activation is None else activation(out)


def _name(activation: nn.Module | None) -> str | None:
    """ "gelu" for the exact GELU that no hook looks at, None for none, "" for any other."""
    if activation is None:
        return None
    exact = type(activation) is nn.GELU and activation.approximate == "none"
    return "gelu" if exact and not activation._forward_hooks else ""


def _is_onednns(x: Tensor, layer: nn.Linear) -> bool:
    weight = layer.weight
    return (
        unwatched(x)
        and type(weight) is nn.Parameter
        and x.dtype == weight.dtype
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and _has_onednn(x.dtype)
    )


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32
