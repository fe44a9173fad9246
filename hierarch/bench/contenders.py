"""The contenders of a benchmark: specs, and peers with random weights.

A peer is timm:MODEL, torchvision:MODEL or transformers:MODEL_TYPE; one of these after onnxruntime:
or openvino:, for the same network in that runtime; or FILE.py:FUNCTION, where the function returns
a module for three-channel images. The file is executed.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from hierarch.bench import runtimes
from hierarch.building import build as build_spec
from hierarch.complexity import count, measure, measure_peer
from hierarch.complexity.peers import LIBRARIES, find_peer, first_line
from hierarch.errors import BenchError, PeerError
from hierarch.exporting.registry import get_target
from hierarch.needs import require
from hierarch.report import shown_size
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides
from hierarch.spec.load import load


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network to be timed, not yet built."""

    name: str
    origin: Mapping[str, Any]
    """Identifies the network for another process: {"spec": ...} or {"peer": ...}."""
    in_chans: int
    build: Callable[[Sides | None], nn.Module]
    """Builds it with random weights, off the meta device, for images of a size; for None, of as
    many sizes as it can take."""
    operators: Callable[[Sides], dict[str, int]]
    """MACs for one image of a size, by operator; may raise `CountError`."""
    execution: str = "eager"
    """"eager", "packed", "compiled", or "runtime" where `runtime` says which."""
    runtime: str = ""

    @property
    def is_peer(self) -> bool:
        return "peer" in self.origin

    def module(self, size: Sides | None) -> nn.Module:
        """The network for images of a size, or of every size. Raises `PeerError` for a peer that
        cannot be built for it."""
        try:
            with warnings.catch_warnings():
                # from torchvision's GoogLeNet and Inception, on their future initialization
                warnings.filterwarnings(
                    "ignore", "The default weight initialization of", FutureWarning
                )
                return with_biases(self.build(size))
        except Exception as error:  # a constructor of another library may raise anything
            if not self.is_peer:
                raise
            images = shown_size(size) if size else "images of every size"
            raise PeerError(
                f"{self.name} cannot be built for {images}: {first_line(error)}"
            ) from error


def with_biases(model: nn.Module) -> nn.Module:
    """The network, in which biases of 0 are drawn anew: trained networks have none. With biases of
    0, as initialized, padding that attends to padding makes subnormal numbers, of which a matrix
    multiplication takes many times as long."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            known = not is_lazy(parameter) and parameter.is_floating_point()
            if name.endswith("bias") and known and not parameter.any():
                parameter.normal_(std=0.02)
    return model


def spec_contender(spec: BackboneSpec) -> Contender:
    def operators(size: Sides) -> dict[str, int]:
        return measure(spec, [size]).sizes[0].operators

    return Contender(
        name=spec.name,
        origin={"spec": spec.to_data()},
        in_chans=spec.stem.in_chans,
        build=lambda size: build_spec(spec),
        operators=operators,
    )


def peer_contender(name: str) -> Contender:
    """The contender of this name. Raises `PeerError` if there is none."""
    library, _, inner = name.partition(":")
    if library in runtimes.TARGETS:
        require(*get_target(runtimes.TARGETS[library]).packages, extra="bench")
        if inner.partition(":")[0] in runtimes.TARGETS:
            raise PeerError(f"{name[:80]!r}: a runtime runs a network, not another runtime")
        network = peer_contender(inner)
        origin = {"peer": name}
        return replace(network, name=name, origin=origin, execution="runtime", runtime=library)
    file, _, function = name.rpartition(":")
    if file.endswith(".py"):
        return _of_file(name, Path(file), function)
    if library not in LIBRARIES:
        raise PeerError(
            f"{name[:80]!r}: a peer is written library:model, such as timm:resnet50; known "
            f"libraries: {', '.join([*LIBRARIES, *runtimes.TARGETS])}; or FILE.py:FUNCTION"
        )
    peer = find_peer(name)

    def operators(size: Sides) -> dict[str, int]:
        return measure_peer(name, [size]).sizes[0].operators

    return Contender(
        name=name,
        origin={"peer": name},
        in_chans=peer.in_chans,
        build=peer.build,
        operators=operators,
    )


def _of_file(name: str, file: Path, function: str) -> Contender:
    if not file.is_file():
        raise PeerError(f"{name[:80]!r}: no such file")
    spec = importlib.util.spec_from_file_location(f"_hierarch_bench_{file.stem}", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may raise anything
        raise PeerError(f"{name[:80]!r} cannot be imported: {first_line(error)}") from error
    make = getattr(module, function, None)
    if not callable(make):
        raise PeerError(f"{name[:80]!r}: the file has no function {function[:80]!r}")

    def operators(size: Sides) -> dict[str, int]:
        with torch.device("meta"):
            return dict(count(make().eval(), size, in_chans=3).macs[""])

    return Contender(
        name=f"{file.name}:{function}",
        origin={"peer": f"{file.resolve()}:{function}"},
        in_chans=3,
        build=lambda size: make(),
        operators=operators,
    )


def contender(origin: Mapping[str, Any], execution: str) -> Contender:
    """The contender with this `origin` and `execution`."""
    network = (
        spec_contender(load(origin["spec"])) if "spec" in origin else peer_contender(origin["peer"])
    )
    return replace(network, execution=execution)


def named_contenders(specs: Iterable[BackboneSpec], peers: Iterable[str]) -> list[Contender]:
    """The specs, with a number in names that are not unique, and the peers, each once."""
    every = list(map(spec_contender, specs))
    names = Counter(contender.name for contender in every)
    numbered = [
        replace(contender, name=f"{contender.name} #{number}")
        if names[contender.name] > 1
        else contender
        for number, contender in enumerate(every, 1)
    ]
    return [*numbered, *map(peer_contender, dict.fromkeys(peers))]


def check_runtime(contender: Contender, modes: list[str], device: str) -> None:
    """Raises `BenchError` unless a runtime runs forward on the CPU."""
    if contender.runtime and (modes != ["forward"] or device != "cpu"):
        raise BenchError(f"{contender.name} runs forward on the CPU only; leave it or the rest out")
