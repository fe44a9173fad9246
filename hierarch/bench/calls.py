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
from hierarch.spec.grid import Sides

Call = Callable[[], object]
Images = Tensor | list[Tensor]
"""A batch (B, C, H, W), or a list of images (C, H, W)."""
LEARNING_RATE = 1e-4


def prepared(contender: Contender, setting: Setting) -> Call:
    """Builds the contender and returns a function that makes one call; it is not called yet.

    The function raises `PeerError` or `BenchError` if the network fails, for example because it
    does not accept the image size.
    """
    call = _prepared(contender, setting)
    step = "a training step" if setting.mode == "training" else "an image"
    what = f"{step} of {shown_size(setting.size)}, batch {setting.batch}, {setting.dtype}"
    return lambda: _checked(call, contender, what)


def any_size(contender: Contender, setting: Setting) -> Callable[[Images], object]:
    """Builds the contender for images of every size, and returns a function that makes one call:
    of a batch, or, if the network is a spec's, of a list of images.

    The function raises `PeerError` or `BenchError` if the network fails, for example because it
    does not accept the image size.
    """
    run = _synchronized(_forward, network(contender, setting, None), setting.device)

    def call(images: Images) -> object:
        if isinstance(images, Tensor):
            shown = f"an image of {shown_size(images.shape[2:])}, batch {len(images)}"
        else:
            shown = f"a list of {', '.join(shown_size(image.shape[1:]) for image in images)}"
        return _checked(lambda: run(images), contender, f"{shown}, {setting.dtype}")

    return call


def _checked(call: Call, contender: Contender, what: str) -> object:
    try:
        return call()
    except HierarchError:
        raise
    except Exception as error:  # a network or a compiler may raise anything
        kind = PeerError if contender.is_peer else BenchError
        how = "" if contender.execution == "eager" else f", {contender.execution}"
        raise kind(f"{contender.name} cannot take {what}{how}: {first_line(error)}") from error


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
    call = _synchronized(run, model, setting.device)
    return lambda: call(images)


def ready(contender: Contender, setting: Setting) -> tuple[nn.Module, Tensor]:
    """The contender's network with random weights, in the setting's mode, and random images."""
    model = network(contender, setting, setting.size)
    return model, _images(contender, setting).to(setting.device, setting.torch_dtype)


def network(contender: Contender, setting: Setting, size: Sides | None) -> nn.Module:
    """The contender's network for images of a size, or of every size, with random weights, in the
    setting's mode."""
    model = contender.module(size).to(setting.device, setting.torch_dtype)
    if isinstance(model, Backbone):
        _pack(model, contender, setting)
    return model.train(setting.mode == "training")


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


Run = Callable[[Callable[[Any], Any], Any], object]
"""Makes one call of a network, compiled or not, with these images."""


def _forward(network: Callable[[Any], Any], images: Images) -> object:
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


def _synchronized(run: Run, model: nn.Module, device: str) -> Callable[[Images], object]:
    if device != "cuda":
        return lambda images: run(model, images)

    def call(images: Images) -> object:
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
