"""Linear layers whose weight lies in the order that oneDNN multiplies in, for inference on a CPU.

oneDNN else brings a weight into that order at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from hierarch.model.inference import is_hooked, linear, multiplies_itself
from hierarch.model.layers import Linear
from hierarch.model.onednn import ONEDNNS_TYPES, is_onednns


class PackedLinear(nn.Module):
    """(..., C) -> (..., D): a linear layer without a weight of its own to train.

    There is one copy of its weight, in oneDNN's order, so that no other can differ from it. A state
    dict has it as that of `Linear` does, and is loaded as there. Where oneDNN cannot multiply, for
    a gradient or in a trace, the weight is unpacked for the call.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self._trained = layer.weight.requires_grad
        self._packed = _packed(layer.weight)
        self.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """(D, C): a copy, in rows."""
        return self._packed.to_dense()

    def forward(
        self, x: Tensor, activation: nn.Module | None = None, *, bias: Tensor | None = None
    ) -> Tensor:
        multiplies = multiplies_itself(x) and is_onednns(x, self._packed)
        weight = self._packed if multiplies else self.weight
        return linear(x, weight, self.bias if bias is None else bias, activation)

    def unpacked(self) -> Linear:
        """The same layer with its weight in rows, and the same bias."""
        layer = Linear(self.in_features, self.out_features, bias=False, device="meta")
        layer.weight, layer.bias = nn.Parameter(self.weight, self._trained), self.bias
        return layer.train(self.training)

    def extra_repr(self) -> str:
        sides = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sides}, bias={self.bias is not None}"

    def _save_to_state_dict(self, *args: Any) -> None:
        self.unpacked()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        layer = self.unpacked()
        layer._load_from_state_dict(*args)
        self.bias, self._packed = layer.bias, _packed(layer.weight)

    def _apply(self, fn: Any, recurse: bool = True) -> PackedLinear:
        packed = _packed(fn(self.weight))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._packed = packed
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: they know no packed tensor."""
        return {**self.__dict__, "_packed": self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed = _packed(state["_packed"])
        super().__setstate__({**state, "_packed": packed})  # type: ignore[no-untyped-call]


def _packed(weight: Tensor) -> Tensor:
    """(D, C) -> (D, C): the same numbers."""
    _check(weight)
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return packed


def _check(weight: Tensor) -> None:
    """Raises `ValueError` for what oneDNN cannot multiply."""
    if weight.device.type != "cpu" or weight.dtype not in ONEDNNS_TYPES:
        held = f"{weight.dtype} on {weight.device}".removeprefix("torch.")
        known = " or ".join(sorted(str(t).removeprefix("torch.") for t in ONEDNNS_TYPES))
        raise ValueError(
            f"weights are packed for a CPU, where oneDNN multiplies {known or 'nothing'}; these "
            f"are {held}: leave them as they are, or unpack_weights() before they are moved"
        )


def pack(module: nn.Module) -> None:
    """Replaces each `Linear` inside a module, but for those that a hook looks at.

    Raises `ValueError`, with none replaced, where oneDNN cannot multiply one.
    """

    def is_packed(layer: nn.Module) -> bool:
        return type(layer) is Linear and not is_hooked(layer)

    for layer in filter(is_packed, module.modules()):
        _check(cast(Linear, layer).weight)
    _replace(module, is_packed, PackedLinear)


def unpack(module: nn.Module) -> None:
    """Undoes `pack`."""
    _replace(module, lambda layer: type(layer) is PackedLinear, PackedLinear.unpacked)


def _replace(
    module: nn.Module, chosen: Callable[[nn.Module], bool], make: Callable[[Any], nn.Module]
) -> None:
    """One after the other, so that little more than one weight is there twice at a time."""
    for parent in module.modules():
        for name, child in parent._modules.items():
            if child is not None and chosen(child):
                setattr(parent, name, make(child))
