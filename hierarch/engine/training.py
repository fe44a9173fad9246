"""Training on a CPU: layers that keep less for the backward pass than autograd, and use oneDNN.

Outputs of matrix multiplications are kept for the backward pass. A norm and an activation are
recomputed, a tile of tokens at a time: memory is saved for 3 to 4 % more time. Gradients, and their
gradients, are autograd's up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.engine.conditions import not_cpu_training, not_of_type, not_registered
from hierarch.engine.onednn import linear_gradients, not_onednn, onednn_linear, outer, product
from hierarch.engine.seam import Refusal, way
from hierarch.nn.layers import Mlp

Grads = tuple[Tensor | None, ...]
TILE_TOKENS = 1568
"""Tokens that go through a layer together, about, in either pass. As many at any width: adding a
tile's gradients of the weights to the sum costs the same whatever the number of tokens."""


def trained_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., C) -> (..., D): a linear layer, for tensors that oneDNN multiplies."""
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


def refuses_mlp(mlp: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Refusal | None:
    """Takes an `Mlp` of two linear layers, all of it trained, in training on a CPU."""
    if refusal := not_cpu_training(x) or not_of_type(mlp, Mlp):
        return refusal
    assert isinstance(mlp, Mlp)
    if refusal := not_of_type(mlp.drop, nn.Dropout):
        return refusal
    if mlp.drop.p:
        return Refusal("dropout in the MLP", mlp.drop)
    return (
        not_of_type(mlp.fc1, nn.Linear)
        or not_of_type(mlp.fc2, nn.Linear)
        or not_repeatable(mlp.act)
        or (not_repeatable(norm) if norm else None)
        or frozen(mlp)
        or not_onednn(x, mlp.fc1.weight)
        or not_onednn(x, mlp.fc2.weight)
    )


@way("recomputed", refuses_mlp)
def run_mlp(mlp: Mlp, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    norm = norm or nn.Identity()
    layers = (mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias)
    return cast(Tensor, _Mlp.apply(x, norm, mlp.act, *layers, *norm.parameters()))


REPEATABLE = (nn.Identity, nn.LayerNorm, nn.GELU, nn.SiLU, nn.ReLU)
"""Types that are cheap, and give the same output each time."""


def not_repeatable(module: nn.Module) -> Refusal | None:
    """Refuses modules that may not be recomputed in the backward pass."""
    if type(module) not in REPEATABLE:
        return Refusal(f"{type(module).__name__} is not recomputed", module)
    return not_of_type(module, type(module)) or not_registered(module) or frozen(module)


def frozen(module: nn.Module) -> Refusal | None:
    """Refuses a module of which a parameter needs no gradient."""
    trained = all(weight.requires_grad for weight in module.parameters())
    return None if trained else Refusal("a frozen parameter", module)


class _Mlp(torch.autograd.Function):
    """Keeps its input, and what comes out of fc1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.Module, act: nn.Module, *weights: Tensor) -> Tensor:
        w1, b1, w2, b2, *_ = weights
        hidden, out = [], x.new_empty(x.shape)
        for part, into in zip(_tiles(x), _tiles(out), strict=True):
            hidden.append(product(norm(part), w1, b1))
            into.copy_(product(act(hidden[-1]), w2, b2))
        ctx.norm, ctx.act = norm, act
        ctx.save_for_backward(x, *weights, *hidden)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        count, saved = len(ctx.needs_input_grad) - 2, ctx.saved_tensors
        (x, *weights), hidden = saved[:count], saved[count:]
        w1, b1, w2, b2, *of_norm = weights
        if torch.is_grad_enabled():
            normed = _holding(ctx.norm, of_norm)(x)
            out = F.linear(ctx.act(F.linear(normed, w1, b1)), w2, b2)
            dx, *rest = by_autograd(out, (x, *weights), grad)
            return dx, None, None, *rest
        sums = Sums(weights)
        # in order in memory, whatever x is: else its tiles would be copies of it
        dx = x.new_empty(x.shape)
        for part, held, back, into in zip(_tiles(x), hidden, _tiles(grad), _tiles(dx), strict=True):
            activated, of_act = _again(ctx.act, held)
            sums.add_linear(2, back, activated)
            (wide,) = of_act(product(back, w2.T))
            normed, of_input = _again(ctx.norm, part, of_norm)
            sums.add_linear(0, wide, normed)
            found, *of_weights = of_input(product(wide, w1.T))
            into.copy_(found)
            for i, of_weight in enumerate(of_weights, start=4):
                sums.add(i, of_weight)
        return dx, None, None, *sums.found


def _tiles(x: Tensor) -> tuple[Tensor, ...]:
    rows = x.reshape(-1, x.shape[-1])
    return rows.tensor_split(max(1, round(len(rows) / TILE_TOKENS)))


def _again(
    module: nn.Module, x: Tensor, weights: Iterable[Tensor] = ()
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """module(x) by these weights, and a function from its gradient to those of x and the weights.

    They are tensors of their own, so that hooks on the module's weights see the sum, once.
    """
    x, *leaves = (tensor.detach().requires_grad_() for tensor in (x, *weights))
    with torch.enable_grad():
        out: Tensor = _holding(module, leaves)(x)
    return out.detach(), lambda grad: torch.autograd.grad(out, (x, *leaves), grad)


def _holding(module: nn.Module, weights: Iterable[Tensor]) -> nn.Module:
    """A layer like this one, with the weights of the forward pass: the layer may hold others by
    now, as after `torch.func.functional_call`."""
    given, like = iter(weights), copy.copy(module)
    parameters = module._parameters.items()
    vars(like)["_parameters"] = {name: w if w is None else next(given) for name, w in parameters}
    return like


class Sums:
    """Sums over tiles of the gradients of some weights."""

    def __init__(self, weights: Sequence[Tensor | None]) -> None:
        self.weights = weights
        self.found: list[Tensor | None] = [None] * len(weights)

    def add(self, index: int, gradient: Tensor) -> None:
        """Adds to the gradient of a weight, in place; `gradient` must not alias."""
        gradient = gradient.contiguous()  # a transposed one takes longer to add than to copy
        total = self.found[index]
        self.found[index] = gradient if total is None else total.add_(gradient)

    def add_linear(self, index: int, grad: Tensor, x: Tensor) -> None:
        """Adds the gradients of a linear layer's weight, and of its bias, which is the next one,
        from the layer's input and the gradient of its output."""
        if self.weights[index] is not None:
            self.add(index, outer(grad, x))
        if self.weights[index + 1] is not None:
            self.add(index + 1, grad.reshape(-1, grad.shape[-1]).sum(0))


def by_autograd(out: Tensor, inputs: Sequence[Tensor | None], grad: Tensor) -> Grads:
    """The gradients of the inputs by autograd, which have gradients of their own."""
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return tuple(next(found) if x is not None and x.requires_grad else None for x in inputs)
