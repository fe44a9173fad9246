"""`from_timm`: the spec and the weights of a network of timm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hierarch.building import Backbone, build
from hierarch.complexity.peers import find_peer
from hierarch.errors import HierarchError, PeerError
from hierarch.spec.grid import per_axis
from hierarch.spec.load import load
from hierarch.weights.load import load_weights
from hierarch.weights.timm_networks.describe import describe
from hierarch.weights.timm_networks.parts import need


def from_timm(source: str | nn.Module, *, pretrained: bool = False, **arguments: Any) -> Backbone:
    """Build a network of timm as a `Backbone` of a spec, its `spec`, with a copy of its weights; in
    eval mode.

    `source` is a network of timm, or the name of one, which `timm.create_model` makes with
    `pretrained` and `arguments`, such as `num_classes=10`. The spec is read off timm's modules,
    rates of drop path and initial values included. The two networks run once, on random numbers
    for an image: they have to agree.

    Raises `PeerError` for a name that timm does not know, and, with the reason, for a network that
    no spec describes.

    >>> model = from_timm("convnext_atto", num_classes=10)
    >>> [stage.dim for stage in model.spec.stages]
    [40, 80, 160, 320]
    """
    if isinstance(source, str):
        find_peer(f"timm:{source}")
        from timm import create_model

        theirs: nn.Module = create_model(source, pretrained=pretrained, **arguments)
    elif pretrained or arguments:
        raise TypeError("pretrained and further arguments are for a network given by its name")
    else:
        theirs = source
    try:
        return _translated(theirs).eval()
    except HierarchError as error:
        name = source if isinstance(source, str) else type(source).__name__
        raise PeerError(f"no spec describes timm's {name}: {error}") from error


def _translated(theirs: nn.Module) -> Backbone:
    like = next(theirs.parameters())
    ours = build(load(describe(theirs))).to(device=like.device, dtype=like.dtype)
    report = load_weights(ours, theirs.state_dict(), layout="timm")
    left = {*report.ignored} & {name for name, _ in theirs.named_parameters()}
    need(not left, f"it has weights that a spec has no place for: {', '.join(sorted(left)[:4])}")
    assert not report.resampled
    assert not report.initialized
    _check_agreement(ours, theirs, like)
    return ours


@torch.no_grad()
def _check_agreement(ours: Backbone, theirs: nn.Module, like: Tensor) -> None:
    """Raise `PeerError` if the outputs differ by more than rounding, for one image."""
    shape = (1, ours.spec.stem.in_chans, *per_axis(ours.spec.input_size))
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like)
    modes = [(module, module.training) for module in theirs.modules()]
    found, wanted = (_outputs(model.eval(), images) for model in (ours, theirs))
    for module, training in modes:
        module.training = training
    # timm's features may be those of a head's hidden layer
    hidden = ours.spec.head is not None and ours.spec.head.hidden_ratio is not None
    difference = max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in list(zip(found, wanted, strict=True))[hidden:]
        if ours.shape == theirs.shape
    )
    rounding = torch.finfo(like.dtype).eps ** 0.5
    need(difference < rounding, f"the outputs of its spec's network differ by {difference:.1e}")


def _outputs(model: Any, images: Tensor) -> list[Tensor]:
    """The features that enter the classifier, and the logits, of a network of either library."""
    features = model.forward_features(images)
    return [model.forward_head(features, pre_logits=before) for before in (True, False)]
