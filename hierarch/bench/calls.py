"""One call of a contender in a setting: a forward pass, or a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.bench import runtimes
from hierarch.bench.contenders import Contender
from hierarch.bench.settings import Setting
from hierarch.building import Backbone
from hierarch.complexity.peers import first_line
from hierarch.errors import BenchError, HierarchError, PeerError
from hierarch.report import shown_size

Call = Callable[[], object]
LEARNING_RATE = 1e-4


def prepared(contender: Contender, setting: Setting) -> Call:
    """Builds the contender and returns a function that makes one call; it is not called yet.

    The function raises `PeerError` or `BenchError` if the network fails, for example because it
    does not accept the image size.
    """
    call = _prepared(contender, setting)

    def checked_call() -> object:
        try:
            return call()
        except HierarchError:
            raise
        except Exception as error:  # a network or a compiler may raise anything
            kind = PeerError if contender.is_peer else BenchError
            step = "a training step" if setting.mode == "training" else "an image"
            how = "" if contender.execution == "eager" else f", {contender.execution}"
            raise kind(
                f"{contender.name} cannot take {step} of {shown_size(setting.size)}, batch "
                f"{setting.batch}, {setting.dtype}{how}: {first_line(error)}"
            ) from error

    return checked_call


def _prepared(contender: Contender, setting: Setting) -> Call:
    if contender.runtime:
        try:
            model = contender.module(setting.size).eval()
            return runtimes.start(contender.runtime, model, _images(contender, setting), setting)
        except HierarchError:
            raise
        except Exception as error:  # an exporter or a runtime may raise anything
            raise PeerError(f"{contender.name} cannot be prepared: {first_line(error)}") from error
    model, images = ready(contender, setting)
    run = _training(model) if setting.mode == "training" else _forward
    if contender.execution == "compiled":
        run = _compiled(model, run, setting)
    return _synchronized(run, model, images, setting.device)


def ready(contender: Contender, setting: Setting) -> tuple[nn.Module, Tensor]:
    """The contender's network with random weights, in the setting's mode, and random images."""
    model = contender.module(setting.size).to(setting.device, setting.torch_dtype)
    images = _images(contender, setting).to(setting.device, setting.torch_dtype)
    if isinstance(model, Backbone):
        _pack(model, contender, setting)
    return model.train(setting.mode == "training"), images


def _images(contender: Contender, setting: Setting) -> Tensor:
    return torch.randn(setting.batch, contender.in_chans, *setting.size)


def _pack(model: Backbone, contender: Contender, setting: Setting) -> None:
    """Packs the weights for packed execution, and, where oneDNN can, before they are frozen."""
    frozen = contender.execution == "compiled" and setting.mode == "forward"
    if not frozen and contender.execution != "packed":
        return
    try:
        model.pack_weights()
    except ValueError as error:
        if not frozen:
            raise BenchError(f"{contender.name}: {error}") from error


Run = Callable[[Callable[[Tensor], Any], Tensor], object]
"""Makes one call of a network, compiled or not, with these images."""


def _forward(network: Callable[[Tensor], Any], images: Tensor) -> object:
    with torch.inference_mode():
        return network(images)


def _training(model: nn.Module) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def run(network: Callable[[Tensor], Any], images: Tensor) -> object:
        optimizer.zero_grad()
        loss(network(images)).backward()  # type: ignore[no-untyped-call]  # torch's
        return optimizer.step()

    return run


def _compiled(model: nn.Module, run: Run, setting: Setting) -> Run:
    compiled = torch.compile(model, dynamic=False)
    # frozen weights become constants of the program; in training they change
    frozen = {"freezing": setting.mode == "forward"}
    warm = False

    def with_compiled(network: Callable[[Tensor], Any], images: Tensor) -> object:
        nonlocal warm
        if warm:
            return run(compiled, images)
        from torch._inductor import config

        with config.patch(frozen):
            out = run(compiled, images)
        warm = True
        return out

    return with_compiled


def _synchronized(run: Run, model: nn.Module, images: Tensor, device: str) -> Call:
    if device != "cuda":
        return lambda: run(model, images)

    def call() -> object:
        out = run(model, images)
        torch.cuda.synchronize()
        return out

    return call


def loss(outputs: Any) -> Tensor:
    """Cross entropy of logits (B, classes); for other outputs, the sum of their means."""
    if isinstance(outputs, Tensor):
        if outputs.ndim == 2:
            labels = torch.zeros(len(outputs), dtype=torch.long, device=outputs.device)
            return F.cross_entropy(outputs.float(), labels)
        return outputs.float().mean()
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs
    return torch.stack([loss(part) for part in parts if part is not None]).sum()
