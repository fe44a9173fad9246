"""Which layer first made a number that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from hierarch.train.sharding import full


def culprit(model: nn.Module, loss: Callable[[], Tensor]) -> str:
    """Where the first NaN or infinity comes from; "" if there is none.

    `loss` runs the network, whose gradients are replaced. It is called only if all weights are
    finite. Looked at are the weights, the layers' outputs in the order in which they are computed,
    the loss, and the gradients from the last layer to the first. Processes that share the weights
    compute the same, whatever each of them finds.
    """
    for name, tensor in model.named_parameters():
        if not finite(full(tensor.detach())):
            return f"the weights {name}"
    found: list[str] = []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            hook = module.register_forward_hook(_watching(name or "the network", module, found))
            stack.callback(hook.remove)
        model.zero_grad(set_to_none=True)
        value = loss()
    value.backward()  # type: ignore[no-untyped-call]  # torch's
    gradients = {name: full(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    wrong = [name for name, gradient in gradients.items() if not finite(gradient)]
    if found:
        return found[0]
    if not finite(value):
        return "the loss, from outputs that are finite"
    return f"the gradient of {wrong[-1]}" if wrong else ""


def finite(value: Any) -> bool:
    """Whether a tensor, or each tensor of a tuple or list, has only finite numbers."""
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return all(map(finite, value)) if isinstance(value, tuple | list) else True


def _watching(name: str, module: nn.Module, found: list[str]) -> Callable[..., None]:
    def watch(_: nn.Module, __: Any, output: Any) -> None:
        if not found and not finite(output):
            found.append(f"the output of {name} ({type(module).__name__})")

    return watch
