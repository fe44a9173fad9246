"""Networks of timm, torchvision and transformers, counted as specs are.

A peer is named library:model. It is built on the meta device with random weights, so nothing is
downloaded or allocated. Only names that the library registers are accepted. A network whose weights
fix the image size is built anew for each size.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hierarch.complexity.counter import Counts, count
from hierarch.complexity.witnesses import power_law
from hierarch.errors import CountError, PeerError, SpecError
from hierarch.report import PeerReport, PeerSize, shown_size
from hierarch.spec.grid import MAX_SIDE, Sides, checked_size

DOUBLINGS = (1, 2, 4, 8)
WHY = "the network is no spec, so there is no claim to compare the count with, and no verdict"


@dataclass(frozen=True)
class Peer:
    """A network of another library, not yet built."""

    size: Sides | None
    """Its nominal image size, if the library defines one."""
    in_chans: int
    build: Callable[[Sides | None], nn.Module]
    """Builds it for images of a size; for None, of as many sizes as it can take."""


def measure_peer(
    name: str,
    sizes: Iterable[int | Sequence[int]] | None = None,
    *,
    advance: Callable[[], object] | None = None,
) -> PeerReport:
    """The cost in MACs of a network of another library at each image size.

    `name` is timm:MODEL, torchvision:MODEL or transformers:MODEL_TYPE, the latter in its default
    configuration. The default sizes are its nominal one, and that doubled up to three times, as far
    as the network accepts it. `advance` is called after each size. Raises `PeerError` for an
    unknown network or a size that it does not accept, `SpecError` for an invalid size, and
    `CountError` for an operator without a rule.

    >>> measure_peer("timm:deit_small_patch16_224", sizes=[224]).sizes[0].macs
    4608338304
    """
    peer = find_peer(name)
    if sizes is not None:
        wanted = [checked_size(size) for size in sizes]
    elif peer.size:
        h, w = peer.size
        wanted = [(h * n, w * n) for n in DOUBLINGS if max(h, w) * n <= MAX_SIDE]
    else:
        raise PeerError(f"{name} has no image size of its own; give the sizes to measure at")
    if not wanted:
        raise SpecError("no image size to measure at")
    why, measured = WHY, []
    for size in wanted:
        try:
            measured.append(_measured(name, peer, size))
        except PeerError:
            if sizes is not None or not measured:
                raise
            why += f"; it takes no image of {shown_size(size)}"
            break
        if advance:
            advance()
    own = peer.size or wanted[0]
    exponent, r2 = power_law([(s.pixels, s.macs - s.head) for s in measured])
    return PeerReport(
        name=name,
        input_size=own,
        params=sum(parameter.numel() for parameter in _built(name, peer, own).parameters()),
        sizes=tuple(measured),
        exponent=exponent,
        r2=r2,
        why=why,
    )


def _measured(name: str, peer: Peer, size: Sides) -> PeerSize:
    model = _built(name, peer, size)
    try:
        counts = count(model, size, in_chans=peer.in_chans)
    except CountError as error:
        raise CountError(f"{name}: {error}") from error
    except Exception as error:  # a network of another library may raise anything
        raise PeerError(
            f"{name} takes no image of {shown_size(size)}: {first_line(error)}"
        ) from error
    names = [child for child, _ in model.named_children()]
    children = {child: counts.total(child) for child in names if counts.total(child)}
    if own := counts.total() - sum(children.values()):
        children["(own)"] = own
    return PeerSize(
        size=size,
        macs=counts.total(),
        activations=counts.activations,
        head=_head(names[-1], counts) if len(children) > 1 else 0,
        operators=dict(sorted(counts.macs[""].items(), key=lambda item: -item[1])),
        modules={module: counts.total(module) for module in counts.macs if counts.total(module)},
        children=children,
    )


def _head(last: str, counts: Counts) -> int:
    # linear layers only: pooling may be in the last child, too, and grows with the image
    operators = counts.macs.get(last, Counter())
    return operators["linear"] + operators["addmm"]


def _built(name: str, peer: Peer, size: Sides) -> nn.Module:
    """The network in eval mode on the meta device, built for images of a size."""
    try:
        with warnings.catch_warnings():
            # from torchvision's GoogLeNet and Inception, on their future initialization
            warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
            return _on_meta(lambda: peer.build(size)).eval()
    except Exception as error:  # a constructor of another library may raise anything
        raise PeerError(
            f"{name} cannot be built for {shown_size(size)}: {first_line(error)}"
        ) from error


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:
        # the constructor reads values of tensors, as torchvision's RegNet does for its widths
        with _OnlyWeightsOnMeta():
            return build().to("meta")


class _OnlyWeightsOnMeta(TorchFunctionMode):
    """Puts tensors of `torch.empty` on the meta device, which is how layers allocate weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = kwargs | {"device": "meta"}
        return func(*args, **kwargs)


def find_peer(name: str) -> Peer:
    """The network of this name. Raises `PeerError` if there is none."""
    library, _, model = name.partition(":")
    if library not in LIBRARIES:
        raise PeerError(
            f"{name[:80]!r}: a peer is written library:model, such as timm:resnet50; "
            f"known libraries: {', '.join(LIBRARIES)}"
        )
    try:
        import_module(library)
    except ModuleNotFoundError as error:
        raise PeerError(
            f"{name[:80]!r}: {error.name} is not installed: pip install {library}"
        ) from None
    return LIBRARIES[library](model)


def _unknown(library: str, model: str, known: Iterable[str]) -> PeerError:
    near = difflib.get_close_matches(model[:80], known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return PeerError(f"{library} has no model {model[:80]!r}{hint}")


def _timm(name: str) -> Peer:
    from timm import create_model, is_model, list_models
    from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg

    # checked first: timm would download "hf-hub:" names and read a "local-dir:"
    architecture, dot, _ = name.partition(".")
    if not is_model(architecture):
        raise _unknown("timm", name, list_models())
    if dot and name not in (tagged := get_arch_pretrained_cfgs(architecture)):
        raise _unknown("timm", name, tagged)
    config = get_pretrained_cfg(name)
    channels, *sides = config.input_size if config else (3,)
    own = (sides[0], sides[1]) if sides else None

    def build(size: Sides | None) -> nn.Module:
        if size is None:
            return _any_size(name)
        resized = config is not None and config.fixed_input_size and size != own
        options: dict[str, Any] = {"img_size": size} if resized else {}
        return create_model(name, **options)

    return Peer(size=own, in_chans=channels, build=build)


def _any_size(name: str) -> nn.Module:
    """timm's network with its own options for images of every size, where it has them: one whose
    weights fix the image size otherwise takes that size alone."""
    from timm import create_model
    from timm.layers.patch_embed import PatchEmbed

    cls = type(_on_meta(lambda: create_model(name)))
    known = inspect.signature(cls).parameters
    every: dict[str, Any] = {"dynamic_img_size": True, "strict_img_size": False}
    options = {key: value for key, value in every.items() if key in known}
    model = create_model(name, **options)
    for module in model.modules():
        if options and isinstance(module, PatchEmbed):
            module.dynamic_img_pad = True  # takes sides that patches do not divide, too
    return model


# the constructor's argument for the image size, by module of torchvision.models
_SIZED = {"vision_transformer": "image_size", "maxvit": "input_size"}


def _torchvision(name: str) -> Peer:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    builder = models.get_model_builder(name)
    side = models.get_model_weights(name).DEFAULT.transforms.keywords["crop_size"]
    argument = _SIZED.get(builder.__module__.rpartition(".")[2])

    def build(size: Sides | None) -> nn.Module:
        value: int | Sides | None = size
        if size and argument == "image_size":
            if size[0] != size[1]:
                raise ValueError("it takes squares only")
            value = size[0]
        options: dict[str, Any] = {argument: value} if argument and value else {}
        model: nn.Module = builder(weights=None, **options)
        return model

    return Peer(size=(side, side), in_chans=3, build=build)


def _transformers(name: str) -> Peer:
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.models.auto import modeling_auto

    known = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if name not in known:
        raise _unknown("transformers", name, known)
    config = AutoConfig.for_model(name)
    given = getattr(config, "image_size", None)
    own = (given, given) if isinstance(given, int) else tuple(given) if given else None

    def build(size: Sides | None) -> nn.Module:
        # transformers fails to choose a class for a config without a list of architectures
        options: dict[str, Any] = {"architectures": []}
        if own and size and size != own:
            options["image_size"] = size[0] if size[0] == size[1] else size
        resized = AutoConfig.for_model(name, **options)
        model: nn.Module = AutoModelForImageClassification.from_config(resized)  # type: ignore[no-untyped-call]
        # a trace supports tensors, not transformers' output classes
        model.register_forward_hook(lambda module, images, output: output.logits)
        return model

    return Peer(size=own, in_chans=getattr(config, "num_channels", 3), build=build)


LIBRARIES: dict[str, Callable[[str], Peer]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}


def first_line(error: Exception) -> str:
    """The type of an exception and the first line of its message."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:200]}" if first else type(error).__name__
