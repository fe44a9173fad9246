"""Linear layers whose weight is in oneDNN's own order, for inference on a CPU.

Otherwise oneDNN brings the weight into that order at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.engine import torch_private
from hierarch.engine.conditions import changed, not_fast_inference
from hierarch.engine.onednn import ONEDNN_DTYPES, inference_linear, not_onednn, onednn_linear
from hierarch.nn import init
from hierarch.nn.layers import per_token
from hierarch.nn.window_mixer import MaskedWindowMixer


@per_token
class PackedLinear(nn.Module):
    """(..., C) -> (..., D): a linear layer without a weight to train.

    The packed weight is the only copy, so that no other can differ from it. A state dict has the
    weight as that of `nn.Linear` does, and is loaded as there. Where oneDNN cannot multiply, for a
    gradient or in a trace, the weight is unpacked for the call.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self._required_grad = layer.weight.requires_grad
        self._packed = _packed(layer.weight)
        self.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """(D, C): a copy, in rows."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x, self.bias)

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
        """(..., C) -> (..., D): with any bias, and with "gelu" after it where autograd is off."""
        if not_fast_inference(x) or not_onednn(x, self._packed):
            out = F.linear(x, self.weight, bias)
            return F.gelu(out) if activation == "gelu" else out
        multiply = onednn_linear if torch.compiler.is_compiling() else inference_linear
        return multiply(x, self._packed, bias, activation)

    def unpacked(self) -> nn.Linear:
        """The same layer with its weight in rows, and the same bias."""
        with torch.device("meta"):
            layer = init.linear(self.in_features, self.out_features, bias=False)
        layer.weight, layer.bias = nn.Parameter(self.weight, self._required_grad), self.bias
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
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        self._packed = packed
        return self

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickle and deepcopy, which know no packed tensor."""
        return {**self.__dict__, "_packed": self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed = _packed(state["_packed"])
        super().__setstate__({**state, "_packed": packed})  # type: ignore[no-untyped-call]  # torch's


def _packed(weight: Tensor) -> Tensor:
    """(D, C) -> (D, C): the same numbers in oneDNN's order."""
    _check(weight)
    assert torch_private.reorder_linear_weight is not None
    packed: Tensor = torch_private.reorder_linear_weight(weight.detach())
    return packed


def _check(weight: Tensor) -> None:
    """Raises `ValueError` for a weight that oneDNN cannot multiply."""
    packs = torch_private.reorder_linear_weight is not None
    dtypes = ONEDNN_DTYPES if packs else frozenset()
    if weight.device.type != "cpu" or weight.dtype not in dtypes:
        got = f"{weight.dtype} on {weight.device}".removeprefix("torch.")
        known = " or ".join(sorted(str(t).removeprefix("torch.") for t in dtypes))
        raise ValueError(
            f"weights are packed for a CPU, where oneDNN multiplies {known or 'nothing'}; these "
            f"are {got}: leave them as they are, or unpack_weights() before they are moved"
        )


def pack(module: nn.Module) -> None:
    """Replaces each plain `nn.Linear` inside a module.

    Layers with a hook stay as they are, and so do those that make a position bias, which is kept
    until one of their parameters changes. Raises `ValueError`, with none replaced, where oneDNN
    cannot multiply a weight.
    """
    mixers = (mixer for mixer in module.modules() if isinstance(mixer, MaskedWindowMixer))
    read = {id(weight) for mixer in mixers for weight in mixer.bias_parameters()}

    def is_packed(layer: nn.Module) -> bool:
        return type(layer) is nn.Linear and id(layer.weight) not in read and not changed(layer)

    for layer in filter(is_packed, module.modules()):
        _check(cast(nn.Linear, layer).weight)
    _replace(module, is_packed, PackedLinear)


def unpack(module: nn.Module) -> None:
    """Undoes `pack`."""
    _replace(module, lambda layer: type(layer) is PackedLinear, PackedLinear.unpacked)


def _replace(
    module: nn.Module, chosen: Callable[[nn.Module], bool], make: Callable[[Any], nn.Module]
) -> None:
    """One after the other, so that little more than one weight is in memory twice at a time."""
    for parent in module.modules():
        for name, child in parent._modules.items():
            if child is not None and chosen(child):
                setattr(parent, name, make(child))
