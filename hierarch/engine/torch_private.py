"""Every private name of torch that the engine uses, and what happens where torch has it no more.

Where a name is missing, the answer is the one that leads to a definition in `hierarch.nn`, or to a
public and slower operator. Names are looked up once, when this module is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_tracing_state = getattr(torch._C, "_get_tracing_state", None)
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
_function_modes = getattr(torch._C, "_len_torch_function_stack", None)
_interpreters = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
_softmax_backward = getattr(torch, "_softmax_backward_data", None)
_global_hooks = [
    getattr(nn.modules.module, f"_global_{kind}_hooks", True)  # without the name, as if there were
    for kind in ("forward", "forward_pre", "backward", "backward_pre")
]


def is_traced() -> bool:
    """Whether torch.jit records each operator."""
    return _tracing_state is None or _tracing_state() is not None


def has_modes() -> bool:
    """Whether a mode of `torch.overrides` or `torch.utils._python_dispatch` sees each operator."""
    if _dispatch_modes is None or _function_modes is None:
        return True
    return bool(_dispatch_modes() or _function_modes())


def is_transformed() -> bool:
    """Whether vmap, grad or jvp of torch.func, or a forward gradient, transforms each operator."""
    if _interpreters is None:
        return True
    level = getattr(forward_ad, "_current_level", 0)  # without the name, 0 is a level
    return _interpreters() is not None or level >= 0


# what torch.compiler.assume_constant_result does, without importing the compiler: the answer is the
# one at compile time, and programs are compiled again under another stack of transforms
cast(Any, is_transformed)._dynamo_marked_constant = True


def has_global_hooks() -> bool:
    """Whether a hook is registered for all modules."""
    return any(_global_hooks)


def has_hooks(module: nn.Module) -> bool:
    """Whether a hook is registered on this module."""
    try:
        return bool(
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
        )
    except AttributeError:
        return True


def is_known(condition: bool) -> bool:
    """Whether a condition on symbolic sizes holds for all of them; outside of compilation, whether
    it holds."""
    if not torch.compiler.is_compiling():
        return condition
    try:
        from torch.fx.experimental.symbolic_shapes import statically_known_true
    except ImportError:
        return False
    return statically_known_true(condition)


def freezes() -> bool:
    """Whether torch.compile makes constants of weights."""
    try:
        from torch._inductor import config
    except ImportError:
        return False
    return bool(getattr(config, "freezing", False))


cast(Any, freezes)._dynamo_marked_constant = True


def softmax_backward(grad: Tensor, softmax: Tensor) -> Tensor:
    """The gradient of the logits, from that of a softmax over the last axis."""
    if _softmax_backward is None:
        return softmax * (grad - (grad * softmax).sum(-1, keepdim=True))
    return cast(Tensor, _softmax_backward(grad, softmax, -1, softmax.dtype))


def openmp_library() -> str | None:
    """The file with torch's own OpenMP and MKL, or None."""
    return getattr(torch._C, "__file__", None)


def has_mkl() -> bool:
    """Whether torch multiplies by MKL."""
    return bool(getattr(torch._C, "has_mkl", False))


# oneDNN: the operator of a linear layer, and that which puts a weight into oneDNN's own order


def _mkldnn(name: str) -> Callable[..., Any] | None:
    packet = getattr(torch.ops.mkldnn, name, None) if getattr(torch._C, "_has_mkldnn", 0) else None
    return getattr(packet, "default", None)


linear_pointwise = _mkldnn("_linear_pointwise")
reorder_linear_weight = _mkldnn("_reorder_linear_weight")


def onednn_dtypes() -> frozenset[torch.dtype]:
    """The types that oneDNN multiplies on this processor; none if it is not there."""
    if linear_pointwise is None:
        return frozenset()
    supports_bfloat16 = _mkldnn("_is_mkldnn_bf16_supported")
    half = {torch.bfloat16} if supports_bfloat16 and supports_bfloat16() else set()
    return frozenset({torch.float32} | half)
