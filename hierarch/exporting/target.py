"""What a kind of file says of itself, and what it is given to write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from hierarch.needs import require

Run = Callable[[Tensor], tuple[Tensor, ...]]
"""Runs a file's network on images (B, C, H, W) in float32, and returns its outputs."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A network to be written."""

    program: ExportedProgram
    """It takes and returns float32, and computes as `Target.traced` says."""
    dtype: str = "float32"
    dynamic: Mapping[int, str] = field(default_factory=dict)
    """The names of the images' axes of any size: {0: "batch"}."""
    outputs: Sequence[str] | None = None
    """The names of the outputs; by default the exporter's."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the file says of the network."""
    calibration: Sequence[Tensor] = ()
    """Batches of images, for int8."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of file: how it is written, and how it is run."""

    name: str
    """What `--to` calls it."""
    runtime: str
    """The package that runs the file."""
    suffix: str
    packages: tuple[str, ...]
    """All packages that writing and running need, apart from torch."""
    extra: str = ""
    """The extra of hierarch-vision that has them."""
    dtypes: Mapping[str, tuple[str, ...]]
    """What files may compute in, each with the packages that only this needs."""
    casts: Collection[str] = ()
    """The dtypes for which the program is of this type. For others it is in float32, and `write`
    makes the difference."""
    dynamic: bool
    """Whether one file may serve several sizes."""
    write: Callable[[Job, Path], None]
    """Writes a file, and others of the same stem beside it if the format has them."""
    load: Callable[[Path, int, str], Run]
    """Starts the runtime with a file, on so many threads, computing in this type."""

    def traced(self, dtype: str) -> torch.dtype:
        """The type of the program's weights."""
        found: torch.dtype = getattr(torch, dtype if dtype in self.casts else "float32")
        return found

    def require(self, dtype: str) -> None:
        """Raise `MissingPackageError` for the first package that is needed and not installed."""
        require(*self.packages, *self.dtypes[dtype], extra=self.extra)
