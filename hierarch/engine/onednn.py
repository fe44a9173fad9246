"""oneDNN's matrix multiplications, which torch calls in part only: on some processors those of the
library behind torch.mm take twice as long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hierarch.engine import torch_private
from hierarch.engine.conditions import autocast, dtype_name
from hierarch.engine.seam import Refusal

ONEDNN_DTYPES = torch_private.onednn_dtypes()


def not_onednn(x: Tensor, weight: Tensor) -> Refusal | None:
    """Refuses tensors that oneDNN does not multiply."""
    if refusal := autocast():
        return refusal
    if type(weight) not in (nn.Parameter, Tensor):
        return Refusal(f"a weight of type {type(weight).__name__}")
    if x.dtype != weight.dtype:
        return Refusal(f"{dtype_name(x)} times {dtype_name(weight)}")
    if x.dtype not in ONEDNN_DTYPES:
        return Refusal(f"{dtype_name(x)} on this processor")
    return Refusal("no tokens") if x.numel() == 0 else None


def onednn_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """(..., C) -> (..., D), for tensors that `not_onednn` accepts; it has no gradient."""
    assert torch_private.linear_pointwise is not None
    rows = x.reshape(-1, x.shape[-1])
    out: Tensor = torch_private.linear_pointwise(rows, weight, bias, activation, [], "none")
    return out.view(*x.shape[:-1], out.shape[-1])


def onednn_outer(left: Tensor, right: Tensor) -> Tensor:
    """(..., C), (..., D) -> (C, D): the sum of outer products."""
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    dims = left.shape[1], right.shape[1]
    if len(left) >= 2 * max(dims):
        # the gradient of a convolution of one pixel, for which both are read as they lie
        pixels = [rows[None, :, None].permute(0, 3, 1, 2) for rows in (left, right)]
        like = left.new_empty(*dims, 1, 1)
        where = [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
        gradients = torch.ops.aten.convolution_backward.default(*pixels, like, None, *where)
        return cast(Tensor, gradients[1]).view(dims)
    # the wider one is taken as a linear layer's weight, which is read as it lies
    if dims[0] < dims[1]:
        return onednn_linear(left.T.contiguous(), right.T)
    return onednn_linear(right.T.contiguous(), left.T).T


def linear_gradients(
    wanted: Sequence[bool],
    x: Tensor,
    weight: Tensor,
    grad: Tensor,
    multiply: Callable[[Tensor, Tensor], Tensor] = onednn_linear,
    outer: Callable[[Tensor, Tensor], Tensor] = onednn_outer,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of a linear layer's input (..., C), weight and bias, from that of its output
    (..., D); None for each that is not `wanted`."""
    of_x, of_weight, of_bias = wanted
    return (
        multiply(grad, weight.T) if of_x else None,
        outer(grad, x) if of_weight else None,
        grad.reshape(-1, grad.shape[-1]).sum(0) if of_bias else None,
    )


# The operators that torch.compile sees, which else calls the library behind torch.mm.


@torch.library.custom_op(
    "hierarch::linear",
    mutates_args=(),
    schema='(Tensor x, Tensor weight, Tensor? bias=None, str activation="none") -> Tensor',
)
def compiled_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """`onednn_linear`, with a gradient where there is no activation."""
    return onednn_linear(x, weight, bias, activation)


@compiled_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op(
    "hierarch::outer", mutates_args=(), schema="(Tensor left, Tensor right) -> Tensor"
)
def compiled_outer(left: Tensor, right: Tensor) -> Tensor:
    """`onednn_outer`, contiguous."""
    return onednn_outer(left, right).contiguous()


@compiled_outer.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(left.shape[-1], right.shape[-1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, str], output: Tensor) -> None:
    x, weight, _, activation = inputs
    assert activation == "none"
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = [*ctx.needs_input_grad, False][:3]  # a bias of None may be left out
    found = linear_gradients(wanted, x, weight, grad, compiled_linear, compiled_outer)
    return (*found, None)


compiled_linear.register_autograd(_backward, setup_context=_keep)
