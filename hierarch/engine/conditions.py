"""When the engine may take over: each function returns None, or a `Refusal` with the reason.

They are combined by `or`, which returns the first refusal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hierarch.engine import torch_private
from hierarch.engine.seam import Refusal
from hierarch.nn.layers import PER_TOKEN

COMPILES = torch.__version__ >= "2.14"
"""Whether torch's compiler may be given the engine's operators: 2.11 finds wrong gradients of an
index that is written to."""

_COMPILED = Refusal("torch.compile or torch.export")
_NOT_COMPILED = Refusal("not compiled by torch.compile", inapplicable=True)
_EXPORTED = Refusal("torch.export")
_OLD_COMPILER = Refusal("the compiler of torch before 2.14")
_TRACED = Refusal("torch.jit.trace")
_TRANSFORMED = Refusal("torch.func or forward-mode autograd")
_NOT_TRANSFORMED = Refusal("neither torch.func nor forward-mode autograd", inapplicable=True)
_MODES = Refusal("a torch function mode or dispatch mode")
_SUBCLASS = Refusal("a tensor subclass")
_ON_CPU = Refusal("on a CPU", inapplicable=True)
_GRADIENT = Refusal("autograd is on")
_NO_GRADIENT = Refusal("autograd is off", inapplicable=True)
_NO_INPUT_GRADIENT = Refusal("an input without a gradient")
_AUTOCAST = Refusal("autocast")
_GLOBAL_HOOK = Refusal("a hook on all modules")


def observed() -> Refusal | None:
    """Refuses unless torch runs each operator as it is called, unseen by anyone."""
    if torch.compiler.is_compiling():
        return _COMPILED
    if torch_private.is_traced():
        return _TRACED
    if torch_private.has_modes():
        return _MODES
    return _TRANSFORMED if torch_private.is_transformed() else None


def not_transformed() -> Refusal | None:
    """Refuses unless torch.func or forward-mode autograd transforms each operator as it is
    called."""
    if torch.compiler.is_compiling():
        return _COMPILED
    return None if torch_private.is_transformed() else _NOT_TRANSFORMED


def not_eager(x: Tensor) -> Refusal | None:
    """`observed`, and refuses tensor subclasses."""
    return observed() or (None if type(x) in (Tensor, nn.Parameter) else _SUBCLASS)


def not_eager_on_cpu(x: Tensor) -> Refusal | None:
    """`not_eager`, and refuses any device but the CPU."""
    if x.device.type != "cpu":
        return Refusal(f"on {x.device.type}")
    return not_eager(x)


def not_cpu_inference(x: Tensor) -> Refusal | None:
    """Refuses unless the CPU runs eagerly with autograd off."""
    return _GRADIENT if torch.is_grad_enabled() else not_eager_on_cpu(x)


def not_cpu_training(x: Tensor) -> Refusal | None:
    """Refuses unless the CPU runs eagerly in float32, with a gradient of x."""
    if not torch.is_grad_enabled():
        return _NO_GRADIENT
    if not x.requires_grad:
        return _NO_INPUT_GRADIENT
    return not_float32(x) or autocast() or not_eager_on_cpu(x)


def not_compiled(x: Tensor) -> Refusal | None:
    """Refuses unless torch.compile makes a program that torch's autograd differentiates."""
    if not torch.compiler.is_compiling():
        return _NOT_COMPILED
    if not COMPILES:
        return _OLD_COMPILER
    if torch.compiler.is_exporting():
        return _EXPORTED
    return _TRANSFORMED if torch_private.is_transformed() else None


def not_compiled_for_cpu(x: Tensor) -> Refusal | None:
    """`not_compiled`, and refuses any device but the CPU, and any type but float32."""
    if refusal := not_compiled(x):
        return refusal
    return not_float32(x) if x.device.type == "cpu" else Refusal(f"on {x.device.type}")


def not_eager_or_compiled(x: Tensor) -> Refusal | None:
    """Refuses unless torch runs x eagerly, or torch.compile compiles it; on any device."""
    return not_eager(x) and not_compiled(x)


def not_fast_inference(x: Tensor) -> Refusal | None:
    """Refuses unless the CPU runs with autograd off: eagerly, or compiled with frozen weights."""
    refusal = not_cpu_inference(x)
    if refusal is _COMPILED and not_compiled_for_cpu(x) is None and torch_private.freezes():
        return None
    return refusal


def on_cpu(x: Tensor) -> Refusal | None:
    return _ON_CPU if x.device.type == "cpu" else None


def not_float32(x: Tensor) -> Refusal | None:
    return None if x.dtype is torch.float32 else Refusal(dtype_name(x))


def autocast() -> Refusal | None:
    return _AUTOCAST if torch.is_autocast_enabled("cpu") else None


def dtype_name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def changed(module: nn.Module) -> Refusal | None:
    """Refuses a module with a hook, or with a `forward` that is not its class's."""
    if torch_private.has_global_hooks():
        return _GLOBAL_HOOK
    if torch_private.has_hooks(module):
        return Refusal("a hook on {module}", module)
    return (
        Refusal("a replaced forward of {module}", module) if "forward" in module.__dict__ else None
    )


def not_of_type(module: nn.Module, cls: type[nn.Module]) -> Refusal | None:
    """Refuses any type but exactly `cls`, and a `changed` module."""
    if type(module) is not cls:
        return Refusal(f"{type(module).__name__} is not {cls.__name__}", module)
    return changed(module)


def not_inherited(module: nn.Module, base: type[nn.Module]) -> Refusal | None:
    """Refuses a subclass of `base` that overrides its `forward`."""
    if type(module).forward is base.forward:
        return None
    return Refusal(f"{type(module).__name__} has a forward of its own", module)


def changed_inside(*modules: nn.Module) -> Refusal | None:
    """Refuses modules of which one, or one inside them, is `changed`."""
    for module in modules:
        # not modules(), which takes longer than all checks together
        refusal = changed(module) or changed_inside(
            *(child for child in module._modules.values() if child is not None)
        )
        if refusal:
            return refusal
    return None


def not_per_token(*modules: nn.Module) -> Refusal | None:
    """Refuses modules that are `changed`, in training mode, or not known to work on each token
    alone: the type of each one, and of each one inside, has to be in `PER_TOKEN`."""
    for module in modules:
        if type(module) not in PER_TOKEN:
            name = type(module).__name__
            return Refusal(f"{name} is not known to work token by token", module)
        refusal = (
            changed(module)
            or _not_plain(module)
            or (Refusal("training mode", module) if module.training else None)
            or not_per_token(*(child for child in module._modules.values() if child is not None))
        )
        if refusal:
            return refusal
    return None


def not_registered(*modules: nn.Module) -> Refusal | None:
    """Refuses modules of which one, or one inside them, has a weight that is no parameter of it, as
    inside FSDP's forward pass: whoever asks for its parameters would miss it."""
    for module in modules:
        if any(isinstance(value, Tensor) for value in vars(module).values()):
            return Refusal("a weight that is no parameter", module)
        if refusal := not_registered(*module.children()):
            return refusal
    return None


def not_known(*modules: nn.Module) -> Refusal | None:
    """Refuses modules that may mix images or keep their output: types that are neither in
    `PER_TOKEN` nor the library's own, nor a convolution."""
    for module in modules:
        cls = type(module)
        known = cls in PER_TOKEN or cls is nn.Conv2d or cls.__module__.startswith("hierarch.")
        if not known:
            return Refusal(f"{cls.__name__} is not a known layer", module)
        if refusal := not_known(*module.children()):
            return refusal
    return None


def _not_plain(module: nn.Module) -> Refusal | None:
    """Refuses a parameter of a tensor subclass, such as a quantized one."""
    for weight in module._parameters.values():
        if weight is not None and type(weight) is not nn.Parameter and type(weight) is not Tensor:
            return Refusal(f"a weight of type {type(weight).__name__}", module)
    return None
