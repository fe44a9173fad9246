"""Running on a CPU when nothing but the result, or its gradient, is wanted: what may then be done
differently."""

from __future__ import annotations

import functools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from hierarch.model.onednn import compiled_linear, is_onednns, onednn_linear


def eager(x: Tensor) -> bool:
    """Whether torch itself runs each operator as it comes, on a CPU."""
    return type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" and runs_eagerly()


def eager_on_gpu(x: Tensor) -> bool:
    """Whether it does so on a GPU, or what else is no CPU."""
    return type(x) in (Tensor, nn.Parameter) and x.device.type != "cpu" and runs_eagerly()


def runs_eagerly() -> bool:
    """Whether torch itself runs each operator as it comes: no trace, no compiler, no vmap, no
    forward gradient, and no mode that looks at each operator."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not _is_transformed()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
    )


def _is_transformed() -> bool:
    """Whether vmap or a forward gradient makes something else of each operator."""
    stack = torch._C._functorch.peek_interpreter_stack()
    return stack is not None or forward_ad._current_level >= 0


# what torch.compiler.assume_constant_result does, without importing the compiler: the answer is
# that of the moment when a program is written, which is written again under another stack
_is_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


COMPILES = torch.__version__ >= "2.14"
"""Whether torch's compiler is one that is told more than the plain path: 2.11 finds other gradients
of an index that is written to."""


@functools.cache
def keep_freed_memory() -> None:
    """Lets the next tile, or the next step, have the memory of the one before.

    glibc gives freed memory back to the system, which clears it for whoever asks next, in excess of
    twice the largest block that it saw freed. It sees one here, once, that nobody has touched.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def unwatched(x: Tensor) -> bool:
    """Whether only the values count: `eager`, and no gradient."""
    return not torch.is_grad_enabled() and eager(x)


def compiled() -> bool:
    """Whether torch.compile makes a program of what follows: no export, no vmap, no forward
    gradient."""
    return (
        COMPILES
        and torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and not _is_transformed()
    )


def _compiled(x: Tensor) -> bool:
    """Whether it does so for a CPU, in float32."""
    return x.device.type == "cpu" and x.dtype is torch.float32 and compiled()


def compiles_inference(x: Tensor) -> bool:
    """Whether it does so for a CPU, in float32, where only the values count."""
    return _compiled(x) and not torch.is_grad_enabled()


def multiplies_itself(x: Tensor) -> bool:
    """Whether oneDNN's own operator is called for x: where torch runs each operator as it comes,
    or its compiler has the weights as constants, which it asks for."""
    return unwatched(x) or (compiles_inference(x) and _freezes())


def _freezes() -> bool:
    """Whether torch's compiler makes constants of weights."""
    from torch._inductor import config

    return bool(config.freezing)


_freezes._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody looks at what goes into a module, or comes out of it, either way."""
    return _is_any_hooked() or _has_hooks(module)


def is_hooked_inside(*modules: nn.Module) -> bool:
    """Whether one of some modules, or a module inside one, `is_hooked`."""
    return _is_any_hooked() or any(map(_has_hooks_inside, modules))


def _is_any_hooked() -> bool:
    every = nn.modules.module  # its own question for all of them is not in torch 2.6
    return bool(
        every._global_forward_hooks
        or every._global_forward_pre_hooks
        or every._global_backward_hooks
        or every._global_backward_pre_hooks
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _has_hooks_inside(module: nn.Module) -> bool:
    # modules() would give each its name, which takes longer than all else here
    children = (child for child in module._modules.values() if child is not None)
    return _has_hooks(module) or any(map(_has_hooks_inside, children))


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: nn.Module | None = None
) -> Tensor:
    """(..., C) -> (..., D): a linear layer, and what follows it. It has a gradient where torch's
    compiler makes a program of it, or oneDNN does not multiply.

    Where it can, by oneDNN's matrix multiplication with the bias and, without a gradient, an exact
    GELU in it: torch first writes the bias to the output, and reads it again for the GELU.
    """
    multiply = onednn_linear if multiplies_itself(x) else compiled_linear if _compiled(x) else None
    if multiply and is_onednns(x, weight):  # last: a trace is asked for no size
        if _is_exact_gelu(activation) and not torch.is_grad_enabled():
            return cast(Tensor, multiply(x, weight, bias, "gelu"))
        out = cast(Tensor, multiply(x, weight, bias))
    else:
        out = F.linear(x, weight, bias)
    return out if activation is None else activation(out)


def _is_exact_gelu(activation: nn.Module | None) -> bool:
    """Whether it is, and no hook looks at it."""
    exact = type(activation) is nn.GELU and activation.approximate == "none"
    return exact and not _has_hooks(cast(nn.Module, activation))
