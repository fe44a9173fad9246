"""oneDNN's matrix multiplications, which torch calls in part only: on some processors those of MKL,
which is behind torch.mm, take twice as long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.engine import torch_private
from hierarch.engine.conditions import autocast, dtype_name
from hierarch.engine.seam import Refusal
from hierarch.spec.grid import ceil_div

ONEDNN_DTYPES = torch_private.onednn_dtypes()
MAX_ROW_COUNTS = 8
"""Numbers of rows for which inference multiplies by weights of one shape as they are. oneDNN makes
a program of half a megabyte for each, and torch keeps a thousand of them in each thread: images of
many sizes would fill that."""
MIN_MULTIPLY_ADDS = 1 << 22
"""Below so many multiply-adds, torch's own call is faster: oneDNN's takes 30 microseconds more, as
measured on a processor on which both multiply alike."""
MKL_IS_FASTER = torch_private.has_mkl() and torch.backends.cpu.get_cpu_capability() == "AVX2"
"""Whether torch's own call is faster at any size. MKL and oneDNN both multiply by AVX2 there, and
oneDNN takes 1.0 to 1.2 of MKL's time, with a GELU in the multiplication 1.2 to 1.6, as measured on
an AMD EPYC of the third generation. With AVX-512 oneDNN uses it on any processor, MKL on some."""
_row_counts: dict[tuple[int, ...], set[int]] = {}
_lock = threading.Lock()


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


def not_faster() -> Refusal | None:
    """Refuses processors on which torch's own multiplication is the faster one."""
    return Refusal("torch multiplies faster on this processor") if MKL_IS_FASTER else None


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C) -> (..., D): a linear layer by the faster library, for tensors that `not_onednn`
    accepts and with autograd off."""
    return F.linear(x, weight, bias) if MKL_IS_FASTER else onednn_linear(x, weight, bias)


def onednn_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """(..., C) -> (..., D), for tensors that `not_onednn` accepts; it has no gradient."""
    assert torch_private.linear_pointwise is not None
    rows = x.reshape(-1, x.shape[-1])
    out: Tensor = torch_private.linear_pointwise(rows, weight, bias, activation, [], "none")
    return out.view(*x.shape[:-1], out.shape[-1])


def inference_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """`onednn_linear` for rows of which there may be many numbers, or few rows."""
    count = x.shape[:-1].numel()
    if count * weight.numel() < MIN_MULTIPLY_ADDS and not weight.is_mkldnn:
        out = F.linear(x, weight, bias)
        return F.gelu(out) if activation == "gelu" else out
    if not _is_one_of_many(count, weight):
        return onednn_linear(x, weight, bias, activation)
    rows = x.new_empty(few(count), x.shape[-1])
    rows[:count] = x.reshape(count, -1)
    return onednn_linear(rows, weight, bias, activation)[:count].view(*x.shape[:-1], -1)


def few(count: int) -> int:
    """The next number of four significant bits, of which there are eight between a power of two
    and the next.

    >>> [few(n) for n in (7, 16, 17, 100, 1000)]
    [7, 16, 18, 104, 1024]
    """
    step = 1 << max(count.bit_length() - 4, 0)
    return ceil_div(count, step) * step


def _is_one_of_many(count: int, weight: Tensor) -> bool:
    """Whether `few` others are to be used: weights of this shape have been multiplied by
    `MAX_ROW_COUNTS` other numbers of rows."""
    counts = _row_counts.setdefault(tuple(weight.shape), set())
    if count == few(count) or count in counts:
        return False
    with _lock:  # two threads may both find room for one
        if len(counts) < MAX_ROW_COUNTS:
            counts.add(count)
        return count not in counts


def forget_row_counts() -> None:
    """Lets inference multiply other numbers of rows as they are."""
    _row_counts.clear()


def outer(left: Tensor, right: Tensor) -> Tensor:
    """(..., C), (..., D) -> (C, D): the sum of outer products, by the faster library."""
    if MKL_IS_FASTER:
        return left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])
    return onednn_outer(left, right)


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
