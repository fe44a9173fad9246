"""The count by fvcore, from a trace of the built module on the meta device.

Nothing is computed or allocated, at any image size. fvcore's conventions are kept: a multiply-add
is 1, a norm is 5 per element. Operators without a rule in fvcore, or with a wrong one, get a rule
here. Operators that are free by convention are in one list. Any other operator is an error, so that
no operator is left out of a total without notice. Only this module imports fvcore.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hierarch.complexity.tracing import tracing_on_meta
from hierarch.errors import CountError
from hierarch.spec.grid import Sides

with warnings.catch_warnings():
    # its import decorates functions with torch.jit.script, which torch deprecates
    warnings.filterwarnings("ignore", message="`torch.jit.script` is")
    from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS
    from fvcore.nn.jit_analysis import JitModelAnalysis
    from fvcore.nn.jit_handles import get_shape

Shape = list[int]
Rule = Callable[[list[Shape], list[Shape]], int]
"""MACs from the shapes of an operator's inputs and outputs; a value that is no tensor has []."""


def _sdpa(inputs: list[Shape], outputs: list[Shape]) -> int:
    # QK^T and AV: a multiply-add per query, key and channel
    q, k, v = inputs[:3]
    return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _matmul(inputs: list[Shape], outputs: list[Shape]) -> int:
    # fvcore's own rule ignores a batch dimension that only the right operand has
    return math.prod(outputs[0]) * inputs[0][-1]


def _baddbmm(inputs: list[Shape], outputs: list[Shape]) -> int:
    # a bias, then the two operands
    return math.prod(outputs[0]) * inputs[1][-1]


def _bicubic(inputs: list[Shape], outputs: list[Shape]) -> int:
    # 4x4 neighbors; fvcore counts 4 for bilinear
    return 16 * math.prod(outputs[0])


def _pool(inputs: list[Shape], outputs: list[Shape]) -> int:
    # one per input element, as fvcore counts adaptive_avg_pool2d
    return math.prod(inputs[0])


_RULES: dict[str, Rule] = {
    "aten::scaled_dot_product_attention": _sdpa,
    "aten::matmul": _matmul,
    "aten::mm": _matmul,
    "aten::baddbmm": _baddbmm,
    "aten::upsample_bicubic2d": _bicubic,
    "aten::adaptive_avg_pool1d": _pool,
}


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    # fvcore's own rule parses numpy's printed report, which has four digits
    equation = inputs[0].toIValue().replace(" ", "")
    operands = equation.split("->")[0].split(",")
    if "." in equation or len(operands) > 2:
        raise CountError(f"einsum {equation!r}: only two operands without ellipsis are counted")
    shapes = [get_shape(value) for value in inputs[1].node().inputs()]
    sides = {
        letter: side
        for letters, shape in zip(operands, shapes, strict=True)
        for letter, side in zip(letters, shape, strict=True)
    }
    return math.prod(sides.values())


def _axes(dim: Any, rank: int) -> set[int]:
    """The axes of a transform, from the value of its argument `dim` in a trace."""
    axes = dim.toIValue()
    if axes is None:  # a list is a node of constants
        axes = [value.toIValue() for value in dim.node().inputs()]
    return {axis % rank for axis in axes}


def _fft(shape: Shape, dim: Any) -> int:
    # A radix-2 transform of n complex numbers has n/2 log2(n) butterflies with a complex product,
    # 4 multiply-adds, each; that of real numbers costs half: n log2(n), rounded up for other n.
    sides = [shape[axis] for axis in _axes(dim, len(shape))]
    return math.prod(shape) * sum((side - 1).bit_length() for side in sides)


def _rfft2(inputs: list[Any], outputs: list[Any]) -> int:
    return _fft(get_shape(inputs[0]), inputs[2])


def _irfft2(inputs: list[Any], outputs: list[Any]) -> int:
    return _fft(get_shape(outputs[0]), inputs[2])


_FVCORE = {
    **{name: rule for name, rule in _DEFAULT_SUPPORTED_OPS.items() if name not in _RULES},
    "aten::einsum": _einsum,
    "aten::fft_rfft2": _rfft2,
    "aten::fft_irfft2": _irfft2,
}

# the operators whose outputs are activations, as fvcore and timm count them
_ACTIVATIONS = {
    *("aten::_convolution", "aten::linear", "aten::addmm", "aten::mm", "aten::bmm"),
    "aten::baddbmm",
    *("aten::matmul", "aten::einsum", "aten::scaled_dot_product_attention"),
}

# Free by convention: additions, comparisons, data movement, creation of tensors, and element-wise
# operators. fvcore counts none of them either.
_FREE = {
    f"aten::{name}"
    for names in (
        "add add_ sub sub_ rsub mul mul_ div div_ neg pow square sqrt rsqrt exp log log2 abs sign",
        "clamp clamp_min clamp_max clamp_ maximum minimum where eq ne ge gt le lt logical_and",
        "logical_or logical_not __and__ __or__ __xor__ bitwise_and bitwise_or bitwise_not floor",
        "floor_divide remainder relu relu_ gelu silu silu_ sigmoid tanh hardtanh softplus",
        "leaky_relu softmax _softmax log_softmax dropout dropout_ feature_dropout mean sum max min",
        "amax amin max_pool2d avg_pool2d avg_pool1d norm linalg_vector_norm",
        "reshape view view_as _unsafe_view flatten unflatten permute transpose t contiguous",
        "unsqueeze unsqueeze_ squeeze squeeze_ expand expand_as repeat tile roll flip pad",
        "constant_pad_nd cat stack chunk split split_with_sizes unbind select slice narrow index",
        "index_select gather masked_fill masked_fill_ index_put_ unfold im2col numpy_T mT",
        "movedim swapaxes pixel_shuffle pixel_unshuffle channel_shuffle tril triu clone detach",
        "copy_ to type_as arange zeros zeros_like ones ones_like full full_like empty new_empty",
        "new_zeros new_ones new_full empty_like size Int ScalarImplicit NumToTensor nonzero",
        "upsample_nearest2d alias lift_fresh linspace meshgrid fill_ zero_ numel eye one_hot",
        "hardswish hardswish_ hardsigmoid hardsigmoid_ hardtanh_ leaky_relu_ sigmoid_ tanh_ elu",
        "elu_ selu mish mish_ prelu square addcmul sin cos cumsum var std var_mean std_mean",
        "reshape_as view_as repeat_interleave col2im adaptive_max_pool2d argsort index_copy_",
        "index_copy view_as_complex",
    )
    for name in names.split()
} - _DEFAULT_SUPPORTED_OPS.keys()


def count_rule(operator: str) -> Callable[[Rule], Rule]:
    """Decorator: adds the rule by which `measure` counts an operator, such as "aten::fft_rfft2".

    The rule gets the shapes of the operator's inputs and outputs and returns MACs.

    >>> @count_rule("aten::fft_rfft2")
    ... def transform(inputs, outputs):
    ...     return 0
    """

    def add(rule: Rule) -> Rule:
        _RULES[operator] = rule
        return rule

    return add


@dataclass(frozen=True)
class Counts:
    """MACs by module name ("" for the network) and operator, and the network's activations."""

    macs: dict[str, Counter[str]]
    activations: int

    def total(self, module: str = "") -> int:
        """MACs of a module, submodules included; 0 if it ran no counted operator."""
        return sum(self.macs.get(module, Counter()).values())


def count(module: nn.Module, size: Sides, *, in_chans: int) -> Counts:
    """Count a module on the meta device for one image (1, in_chans, height, width).

    Raises `CountError` for an operator without a rule.
    """
    # the tracer writes down the whole stack of calls at each operator: a thread's is short
    with ThreadPoolExecutor(1) as thread:
        by_module, unknown = thread.submit(_analyzed, module, (1, in_chans, *size)).result()
    if unknown:
        raise CountError(
            f"no rule to count {', '.join(sorted(unknown))}; give it one with "
            f'@hierarch.count_rule("{min(unknown)}")'
        )
    macs = {
        name: Counter({op: int(n) for (what, op), n in counter.items() if what == "macs" and n})
        for name, counter in by_module.items()
    }
    activations = sum(n for (what, _), n in by_module[""].items() if what == "activations")
    return Counts(macs=macs, activations=int(activations))


def _analyzed(module: nn.Module, size: Sides) -> tuple[dict[str, Any], set[str]]:
    """Counts by module and by what and operator, and operators without a rule."""
    with tracing_on_meta():
        analysis = _Analysis(module, (torch.empty(size, device="meta"),))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return analysis.by_module_and_operator(), analysis.unsupported_ops()


class _Analysis(JitModelAnalysis):  # type: ignore[misc]  # fvcore has no types
    """fvcore's analysis, which counts MACs and activations in one trace."""

    def __init__(self, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__(model, inputs)
        self._ignored_ops = _FREE
        for name in {*_FVCORE, *_RULES}:
            self.set_op_handle(name, _handle(name))


def _handle(name: str) -> Callable[[list[Any], list[Any]], Counter[tuple[str, str]]]:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[tuple[str, str]]:
        op = name.removeprefix("aten::")
        ins, outs = ([get_shape(v) or [] for v in values] for values in (inputs, outputs))
        macs = _RULES[name](ins, outs) if name in _RULES else _FVCORE[name](inputs, outputs)
        macs = sum(macs.values()) if isinstance(macs, Counter) else macs
        counts = Counter({("macs", op): int(macs)})
        if name in _ACTIVATIONS:
            counts["activations", op] = sum(map(math.prod, outs))
        if name == "aten::scaled_dot_product_attention":
            # the attention map, which is an output of softmax(QK^T) in explicit attention
            counts["activations", op] += math.prod(ins[0][:-1]) * ins[1][-2]
        return counts

    return handle
