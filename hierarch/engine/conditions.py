"""When the engine may take over: each function returns None, or a `Refusal` with the reason.

They are combined by `or`, which returns the first refusal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hierarch.engine import torch_private
from hierarch.engine.seam import Refusal
from hierarch.nn.convolution import CONVOLUTIONS
from hierarch.nn.layers import PER_TOKEN

COMPILES = torch.__version__ >= "2.14"
"""Whether torch's compiler may be given the engine's operators: 2.11 finds wrong gradients of an
index that is written to."""


def observed() -> Refusal | None:
    """Refuses unless torch runs each operator as it is called, unseen by anyone."""
    if torch.compiler.is_compiling():
        return Refusal("torch.compile or torch.export")
    if torch_private.is_traced():
        return Refusal("torch.jit.trace")
    if torch_private.has_modes():
        return Refusal("a torch function mode or dispatch mode")
    return transformed()


def transformed() -> Refusal | None:
    if torch_private.is_transformed():
        return Refusal("torch.func or forward-mode autograd")
    return None


def not_eager(x: Tensor) -> Refusal | None:
    """`observed`, and refuses tensor subclasses."""
    if refusal := observed():
        return refusal
    return None if type(x) in (Tensor, nn.Parameter) else Refusal("a tensor subclass")


def not_eager_on_cpu(x: Tensor) -> Refusal | None:
    """`not_eager`, and refuses any device but the CPU."""
    return not_on_cpu(x) or not_eager(x)


def not_cpu_inference(x: Tensor) -> Refusal | None:
    """Refuses unless the CPU runs eagerly with autograd off."""
    return Refusal("autograd is on") if torch.is_grad_enabled() else not_eager_on_cpu(x)


def not_cpu_training(x: Tensor) -> Refusal | None:
    """Refuses unless the CPU runs eagerly in float32, with a gradient of x."""
    if not torch.is_grad_enabled():
        return Refusal("autograd is off", inapplicable=True)
    if not x.requires_grad:
        return Refusal("an input without a gradient")
    return not_float32(x) or autocast() or not_eager_on_cpu(x)


def not_compiled(x: Tensor) -> Refusal | None:
    """Refuses unless torch.compile makes a program that torch's autograd differentiates."""
    if not torch.compiler.is_compiling():
        return Refusal("not compiled by torch.compile", inapplicable=True)
    if not COMPILES:
        return Refusal("the compiler of torch before 2.14")
    return Refusal("torch.export") if torch.compiler.is_exporting() else transformed()


def not_compiled_for_cpu(x: Tensor) -> Refusal | None:
    """`not_compiled`, and refuses any device but the CPU, and any type but float32."""
    return not_compiled(x) or not_on_cpu(x) or not_float32(x)


def not_eager_or_compiled(x: Tensor) -> Refusal | None:
    """Refuses unless torch runs x eagerly, or torch.compile compiles it; on any device."""
    return not_eager(x) and not_compiled(x)


def not_fast_inference(x: Tensor) -> Refusal | None:
    """Refuses unless the CPU runs with autograd off: eagerly, or compiled with frozen weights."""
    compiles = torch.compiler.is_compiling() and not torch.is_grad_enabled()
    if compiles and torch_private.freezes():
        return not_compiled_for_cpu(x)
    return not_cpu_inference(x)


def not_on_cpu(x: Tensor) -> Refusal | None:
    if not isinstance(x, Tensor):
        return Refusal("a proxy of a tracer, which is no tensor")
    return None if x.device.type == "cpu" else Refusal(f"on {x.device.type}")


def not_float32(x: Tensor) -> Refusal | None:
    return None if x.dtype is torch.float32 else Refusal(dtype_name(x))


def autocast() -> Refusal | None:
    return Refusal("autocast") if torch.is_autocast_enabled("cpu") else None


def dtype_name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def changed(module: nn.Module) -> Refusal | None:
    """Refuses a module with a hook, or with a `forward` that is not its class's."""
    if torch_private.has_global_hooks():
        return Refusal("a hook on all modules")
    if torch_private.has_hooks(module):
        return Refusal("a hook on {module}", module)
    if "forward" in module.__dict__:
        return Refusal("a replaced forward of {module}", module)
    return None


def not_of_type(module: nn.Module, cls: type[nn.Module]) -> Refusal | None:
    """Refuses any type but exactly `cls`, and a `changed` module."""
    if type(module) is not cls:
        return Refusal(f"{type(module).__name__} is not {cls.__name__}", module)
    return changed(module)


def not_a_convolution(module: nn.Module) -> Refusal | None:
    """Refuses any type but torch's convolutions, and a `changed` module."""
    if type(module) in CONVOLUTIONS.values():
        return changed(module)
    return Refusal(f"{type(module).__name__} is not a convolution", module)


def not_inherited(module: nn.Module, base: type[nn.Module]) -> Refusal | None:
    """Refuses a subclass of `base` that overrides its `forward`."""
    if type(module).forward is base.forward:
        return None
    return Refusal(f"{type(module).__name__} has a forward of its own", module)


def inside(refuses: Callable[[nn.Module], Refusal | None], *modules: nn.Module) -> Refusal | None:
    """What `refuses` says of the first module, of these and those inside them, that it refuses."""
    for module in modules:
        # not modules(), which takes longer than all checks together
        children = (child for child in module._modules.values() if child is not None)
        if refusal := refuses(module) or inside(refuses, *children):
            return refusal
    return None


def not_known(module: nn.Module) -> Refusal | None:
    """Refuses a `changed` module, and one that may mix images or keep its output: of a type that is
    neither in `PER_TOKEN` nor the library's own, nor a convolution."""
    cls = type(module)
    if cls in PER_TOKEN or cls in CONVOLUTIONS.values() or cls.__module__.startswith("hierarch."):
        return changed(module)
    return Refusal(f"{cls.__name__} is not a known layer", module)


def not_per_token(module: nn.Module) -> Refusal | None:
    """Refuses a module that is `changed`, in training mode, or of a type that is not in
    `PER_TOKEN`; and a weight of a tensor subclass, such as a quantized one."""
    if type(module) not in PER_TOKEN:
        return Refusal(f"{type(module).__name__} is not known to work token by token", module)
    if refusal := changed(module):
        return refusal
    for weight in module._parameters.values():
        if weight is not None and type(weight) is not nn.Parameter and type(weight) is not Tensor:
            return Refusal(f"a weight of type {type(weight).__name__}", module)
    return Refusal("training mode", module) if module.training else None


def not_registered(module: nn.Module) -> Refusal | None:
    """Refuses a weight that is no parameter, as inside FSDP's forward pass, which has it under the
    parameter's name: whoever asks for parameters would miss it."""
    own = (value for name, value in vars(module).items() if not name.startswith("_"))
    if any(isinstance(value, Tensor) for value in own):
        return Refusal("a weight that is no parameter", module)
    return None
