"""A network as a program of torch.export, from which every target is written."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from hierarch.building import Backbone


class Exported(nn.Module):
    """Images in float32 -> outputs in float32, computed in the type of the network's weights.

    `features` are the maps of all stages, (B, C_i, H_i, W_i) each, of a network with a head.
    """

    def __init__(self, network: Backbone, *, features: bool) -> None:
        super().__init__()
        self.network = network
        self.features = features

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        images = images.to(next(self.network.parameters()).dtype)
        if self.features:
            maps: Any = self.network.forward_intermediates(images, intermediates_only=True)
            return tuple(m.float() for m in maps)
        outputs = self.network(images)
        if isinstance(outputs, Tensor):
            return outputs.float()
        return tuple(output.float() for output in outputs)


def program(model: nn.Module, images: Tensor, dynamic: Iterable[int] = ()) -> ExportedProgram:
    """The program of a network in eval mode, for images of this size; along the `dynamic` axes, for
    those of any size.

    Sizes are symbolic from the start, or a batch of one image would be a case apart. What must hold
    of them is checked when the program runs, since no solver sees that n < 4n for every n.
    """
    axes = dict.fromkeys(dynamic, Dim.DYNAMIC)
    options: dict[str, Any] = {"dynamic_shapes": (axes,)} if axes else {}
    late = "prefer_deferred_runtime_asserts_over_guards"
    if axes and late in inspect.signature(torch.export.export).parameters:
        options[late] = True
    with warnings.catch_warnings(), torch.no_grad(), _from_the_start():
        warnings.simplefilter("ignore")  # of torch's own tracing
        return torch.export.export(model, (images,), **options)


def _from_the_start() -> AbstractContextManager[Any]:
    settings: Any = _config
    if not hasattr(settings, "backed_size_oblivious"):  # torch 2.6
        return nullcontext()
    patched: AbstractContextManager[Any] = settings.patch(backed_size_oblivious=True)
    return patched
