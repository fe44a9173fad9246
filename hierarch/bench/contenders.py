"""Who takes part: specs, and peers that are built with random weights, as `measure_peer` does.

A peer is timm:MODEL, torchvision:MODEL, transformers:MODEL_TYPE; onnxruntime: or openvino: before
one of these, for the same network in that runtime; or FILE.py:FUNCTION, where the function returns
a module for three-channel images. The file is the user's own code, and is run.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hierarch.bench import runtimes
from hierarch.building import build as build_spec
from hierarch.complexity import count, measure, measure_peer
from hierarch.complexity.peers import LIBRARIES, find_peer, told
from hierarch.errors import BenchError, PeerError
from hierarch.report import shown_size
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Pair
from hierarch.spec.load import load


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network that takes part, not yet built."""

    name: str
    origin: Mapping[str, Any]
    """From which another process finds the same network: {"spec": ...} or {"peer": ...}."""
    in_chans: int
    build: Callable[[Pair], nn.Module]
    """With real weights, for images of one size."""
    operators: Callable[[Pair], dict[str, int]]
    """MACs for one image by fvcore's operator; they may raise `CountError`."""
    execution: str = "eager"
    """"eager", "packed", "compiled", or "runtime" where `runtime` says which."""
    runtime: str = ""

    @property
    def is_peer(self) -> bool:
        return "peer" in self.origin

    def module(self, size: Pair) -> nn.Module:
        """The network. Raises `PeerError` for a peer that cannot be built for the size."""
        try:
            with warnings.catch_warnings():
                # torchvision's GoogLeNet and Inception, on how they will draw random weights
                warnings.filterwarnings(
                    "ignore", "The default weight initialization of", FutureWarning
                )
                return self.build(size)
        except Exception as error:  # a foreign constructor may raise anything
            if not self.is_peer:
                raise
            raise PeerError(
                f"{self.name} cannot be built for {shown_size(size)}: {told(error)}"
            ) from error


def spec_contender(spec: BackboneSpec) -> Contender:
    def operators(size: Pair) -> dict[str, int]:
        return measure(spec, [size]).sizes[0].operators

    return Contender(
        name=spec.name,
        origin={"spec": spec.to_data()},
        in_chans=spec.stem.in_chans,
        build=lambda size: build_spec(spec),
        operators=operators,
    )


def peer_contender(name: str) -> Contender:
    """The contender of a peer's name. Raises `PeerError` where there is none."""
    library, _, inner = name.partition(":")
    if library in runtimes.NEEDS:
        runtimes.check_installed(name, library)
        if inner.partition(":")[0] in runtimes.NEEDS:
            raise PeerError(f"{name[:80]!r}: a runtime runs a network, not another runtime")
        found = peer_contender(inner)
        origin = {"peer": name}
        return replace(found, name=name, origin=origin, execution="runtime", runtime=library)
    file, _, function = name.rpartition(":")
    if file.endswith(".py"):
        return _of_file(name, Path(file), function)
    if library not in LIBRARIES:
        raise PeerError(
            f"{name[:80]!r}: a peer is written library:model, such as timm:resnet50; known "
            f"libraries: {', '.join([*LIBRARIES, *runtimes.NEEDS])}; or FILE.py:FUNCTION"
        )
    peer = find_peer(name)

    def operators(size: Pair) -> dict[str, int]:
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
    found = importlib.util.spec_from_file_location(f"_hierarch_bench_{file.stem}", file)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:  # a user's file may raise anything
        raise PeerError(f"{name[:80]!r} cannot be imported: {told(error)}") from error
    make = getattr(module, function, None)
    if not callable(make):
        raise PeerError(f"{name[:80]!r}: the file has no function {function[:80]!r}")

    def operators(size: Pair) -> dict[str, int]:
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
    """The same network again, from what `Contender.origin` says."""
    found = (
        spec_contender(load(origin["spec"])) if "spec" in origin else peer_contender(origin["peer"])
    )
    return replace(found, execution=execution)


def check_can(found: Contender, modes: list[str], device: str) -> None:
    """Raises `BenchError` for what a runtime is not able to do."""
    if found.runtime and (modes != ["forward"] or device != "cpu"):
        raise BenchError(f"{found.name} runs forward on the CPU only; leave it or the rest out")
