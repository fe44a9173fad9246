"""Makes torch.jit's tracer work on the meta device.

Four things are changed while the tracer runs. Sizes are plain integers, so that a module may
compare them. A convolution is recorded as `_convolution`, the node that fvcore counts. Its output
shape on the meta device is computed here, since torch's own rule fails under the tracer, and those
of frequent operators, since torch's rules take long. What follows from sizes alone, such as
indices, is made once and not recorded: it is free, and would be half of all operators.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hierarch.errors import CountError
from hierarch.nn import functional

_CONVOLUTIONS: dict[Any, int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_TRANSPOSED = {torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d}
_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]  # a C slot
_SIZE = torch.Tensor.size
_set_tracing_state: Callable[[Any], None] = vars(torch._C)["_set_tracing_state"]


@contextlib.contextmanager
def tracing_on_meta() -> Iterator[None]:
    """Context in which a module on the meta device can be traced."""
    with _constants_apart(), _Functions(), _Kernels(), torch.no_grad():  # type: ignore[no-untyped-call]  # torch's
        yield


@contextlib.contextmanager
def _constants_apart() -> Iterator[None]:
    """Context in which `functional.constant` on the meta device is not recorded."""
    defined, made = functional.constant, dict[Any, torch.Tensor]()

    def constant(
        make: Callable[..., torch.Tensor], *sizes: Any, device: torch.device
    ) -> torch.Tensor:
        if device.type != "meta":
            return defined(make, *sizes, device=device)
        if (make, sizes) not in made:
            with _tracer_paused():
                made[make, sizes] = make(*sizes, device=device)
        return made[make, sizes]

    functional.constant = constant
    try:
        yield
    finally:
        functional.constant = defined


class _Functions(TorchFunctionMode):
    """Intercepts calls before the tracer records them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (_SHAPE, _SIZE):
            with _tracer_paused():
                return func(*args, **kwargs)
        if func in _TRANSPOSED:
            raise CountError("transposed convolutions cannot be traced on the meta device")
        if func in _CONVOLUTIONS and args[0].is_meta:
            return _convolution(_CONVOLUTIONS[func], *args, **kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def _tracer_paused() -> Iterator[None]:
    state = torch._C._get_tracing_state()
    _set_tracing_state(None)
    try:
        yield
    finally:
        _set_tracing_state(state)


def _convolution(
    n: int,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """A convolution over n axes, recorded as the node `_convolution`."""
    stride, dilation = _each(stride, n), _each(dilation, n)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(t % 2 for t in total):
            raise CountError('padding="same" with an even kernel cannot be counted; pad first')
        padding = [t // 2 for t in total]
    fixed = (False, [0] * n, groups, False, False, False, False)
    return torch._convolution(input, weight, bias, stride, _each(padding, n), dilation, *fixed)


def _each(value: Any, n: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Intercepts operators after the tracer has recorded them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output, kwargs = _OUTPUTS.get(func), kwargs or {}
        on_meta = bool(args) and isinstance(args[0], torch.Tensor) and args[0].is_meta
        made = output(*args, **kwargs) if output and on_meta else None
        return func(*args, **kwargs) if made is None else made


# Outputs of operators on the meta device, or None to ask torch. It cannot be asked for those of
# convolutions. The others are most of a trace, and torch's own rules are in Python and slow.


def _convolved(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, *_: Any
) -> Any:
    sides = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    return x.new_empty([x.shape[0], weight.shape[0], *sides])


def _elementwise(x: Any, y: Any, **_: Any) -> Any:
    if type(y) is int and x.dtype is torch.long:
        return x.new_empty(x.shape)
    if not isinstance(y, torch.Tensor):
        return _like_floats(x)
    if not y.is_meta or x.dtype is not y.dtype:
        return None
    if x.shape == y.shape:
        return x.new_empty(x.shape)
    shape = torch.broadcast_shapes(x.shape, y.shape)  # type: ignore[no-untyped-call]  # torch's
    return x.new_empty(shape)


def _like_first(x: Any, *_: Any, **__: Any) -> Any:
    return x.new_empty(x.shape)


def _like_floats(x: Any, *_: Any, **__: Any) -> Any:
    return x.new_empty(x.shape) if x.is_floating_point() else None


def _layer_norm(x: Any, shape: Any, *_: Any) -> Any:
    statistic = x.new_empty([*x.shape[: -len(shape)], *[1] * len(shape)])
    return x.new_empty(x.shape), statistic, statistic


def _batch_norm(x: Any, *_: Any) -> Any:
    statistic = x.new_empty([0])
    return x.new_empty(x.shape), statistic, statistic


def _product(bias: Any, x: Any, y: Any, **_: Any) -> Any:
    return x.new_empty([x.shape[0], y.shape[1]])


_aten = torch.ops.aten
_OUTPUTS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys([_aten.convolution.default, _aten._convolution.default], _convolved),
    **dict.fromkeys(
        [_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.floor_divide.default],
        _elementwise,
    ),
    **dict.fromkeys([_aten.mul.Scalar, _aten.clamp.default, _aten.clamp_min.default], _like_floats),
    **dict.fromkeys(
        [_aten.gelu.default, _aten.relu.default, _aten._safe_softmax.default], _like_first
    ),
    _aten.native_batch_norm.default: _batch_norm,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.addmm.default: _product,
}
