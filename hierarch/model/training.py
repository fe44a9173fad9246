"""Training on a CPU: layers whose backward pass keeps less, and multiplies faster, than autograd's.

What takes a matrix multiplication is kept for the backward pass; what does not, a norm and an
activation, is worked out again, a tile of tokens at a time. The gradients are autograd's but for
rounding, and so are those of the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.model.inference import eager, is_hooked
from hierarch.model.onednn import is_onednns, linear_gradients, onednn_linear, onednn_outer

Grads = tuple[Tensor | None, ...]
TILE = 1568
"""Tokens that go through a layer together, about, either way. As many at any width: each tile's
gradients of the weights are added to what there is of them, which costs as much whatever is in it.
"""


def trains(x: Tensor, weight: Tensor) -> bool:
    """Whether a gradient of both is wanted, and torch runs each operator itself, in float32."""
    return (
        torch.is_grad_enabled()
        and x.requires_grad
        and weight.requires_grad
        and x.dtype is torch.float32
        and eager(x)
        and is_onednns(x, weight)
    )


def trained_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., C) -> (..., D), for what `trains`."""
    return cast(Tensor, _Linear.apply(x, weight, bias))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return onednn_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            return by_autograd(F.linear(x, weight, bias), (x, weight, bias), grad)
        return linear_gradients(ctx.needs_input_grad, x, weight, grad)


def trained_mlp(
    x: Tensor, norm: nn.Module, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear
) -> Tensor:
    """(..., C) -> (..., C): fc2(act(fc1(norm(x)))), for what `trains`, where norm and activation
    `can_repeat`."""
    layers = (fc1.weight, fc1.bias, fc2.weight, fc2.bias)
    return cast(Tensor, _Mlp.apply(x, norm, act, *layers, *norm.parameters()))


def can_repeat(*modules: nn.Module) -> bool:
    """Whether they may be run once more: cheap, trained whole, and seen by nobody."""
    cheap = (nn.Identity, nn.LayerNorm, nn.GELU, nn.SiLU, nn.ReLU)
    return all(
        isinstance(module, cheap)
        and all(weight.requires_grad for weight in module.parameters())
        and not is_hooked(module)
        for module in modules
    )


class _Mlp(torch.autograd.Function):
    """Keeps its input, and what comes out of fc1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.Module, act: nn.Module, *weights: Tensor) -> Tensor:
        w1, b1, w2, b2, *_ = weights
        hidden, out = [], x.new_empty(x.shape)
        for part, into in zip(_tiles(x), _tiles(out), strict=True):
            hidden.append(onednn_linear(norm(part), w1, b1))
            into.copy_(onednn_linear(act(hidden[-1]), w2, b2))
        ctx.norm, ctx.act = norm, act
        ctx.save_for_backward(x, *weights, *hidden)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        count, saved = len(ctx.needs_input_grad) - 2, ctx.saved_tensors
        (x, *weights), hidden = saved[:count], saved[count:]
        w1, b1, w2, b2, *of_norm = weights
        if torch.is_grad_enabled():
            out = F.linear(ctx.act(F.linear(ctx.norm(x), w1, b1)), w2, b2)
            dx, *rest = by_autograd(out, (x, *weights), grad)
            return dx, None, None, *rest
        sums = Sums(weights)
        # in order in memory, whatever x is: else its tiles would be copies of it
        dx = x.new_empty(x.shape)
        for part, held, back, into in zip(_tiles(x), hidden, _tiles(grad), _tiles(dx), strict=True):
            activated, of_act = _again(ctx.act, held)
            sums.add_linear(2, back, activated)
            (wide,) = of_act(onednn_linear(back, w2.T))
            normed, of_input = _again(ctx.norm, part, of_norm)
            sums.add_linear(0, wide, normed)
            found, *of_weights = of_input(onednn_linear(wide, w1.T))
            into.copy_(found)
            for i, of_weight in enumerate(of_weights, start=4):
                sums.add(i, of_weight)
        return dx, None, None, *sums.found


def _tiles(x: Tensor) -> tuple[Tensor, ...]:
    rows = x.reshape(-1, x.shape[-1])
    return rows.tensor_split(max(1, round(len(rows) / TILE)))


def _again(
    module: nn.Module, x: Tensor, weights: Iterable[Tensor] = ()
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """What a module makes of x, and the way back from its gradient to those of x and weights."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out: Tensor = module(x)
    return out.detach(), lambda grad: torch.autograd.grad(out, (x, *weights), grad)


class Sums:
    """The gradients of some weights, to which each tile adds its own."""

    def __init__(self, weights: Sequence[Tensor | None]) -> None:
        self.weights = weights
        self.found: list[Tensor | None] = [None] * len(weights)

    def add(self, index: int, gradient: Tensor) -> None:
        """Adds what nobody else has to the gradient of a weight."""
        gradient = gradient.contiguous()  # a transposed one takes longer to add than to copy
        total = self.found[index]
        self.found[index] = gradient if total is None else total.add_(gradient)

    def add_linear(self, index: int, grad: Tensor, x: Tensor) -> None:
        """Adds a linear layer's gradients of its weight, and of its bias, which is the next one,
        from its input and the gradient of its output."""
        if self.weights[index] is not None:
            self.add(index, onednn_outer(grad, x))
        if self.weights[index + 1] is not None:
            self.add(index + 1, grad.reshape(-1, grad.shape[-1]).sum(0))


def by_autograd(out: Tensor, inputs: Sequence[Tensor | None], grad: Tensor) -> Grads:
    """The gradients of what autograd saw itself, which have gradients of their own."""
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return tuple(next(found) if x is not None and x.requires_grad else None for x in inputs)
