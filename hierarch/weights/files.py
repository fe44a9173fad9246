"""Checkpoint files: read without running code, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hierarch.errors import WeightsError
from hierarch.files import writing
from hierarch.weights.pickles import first_line, read_pickle

Source = str | os.PathLike[str] | Mapping[str, Any]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Of the files that are written. Any file is read: as .safetensors by its suffix, else a pickle."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file. Tensors are mapped from the file rather than read, if possible."""

    entries: Mapping[Any, Any]
    """A state dict, or nested mappings of which some are state dicts."""
    name: str = ""
    """The file's name without its suffix."""
    metadata: Mapping[str, str] = field(default_factory=dict)


def read(source: Source) -> Checkpoint:
    """Read a file (.safetensors; .pth, .pt, .bin, .ckpt, .pkl and other pickles), or a mapping.

    Raises `WeightsError` for a file that cannot be read, that holds no mapping, or that could run
    code.
    """
    if isinstance(source, Mapping):
        return Checkpoint(source)
    path = Path(source)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    found = read_pickle(path)
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, not a state dict")
    return Checkpoint(found, path.stem)


def _safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as error:
        raise WeightsError(f"{path}: cannot be read: {first_line(error)}") from None
    return Checkpoint(tensors, path.stem, metadata)


def write(path: str | os.PathLike[str], tensors: dict[str, Tensor], **metadata: str) -> None:
    """Write a state dict as .safetensors, or as what `torch.load` reads (.pth, .pt, .bin).

    Raises `WeightsError` for another suffix, and where the file cannot be written.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise WeightsError(f"{target}: should end in .safetensors, .pth, .pt or .bin")
    try:
        with writing(target) as temporary:
            if target.suffix == ".safetensors":
                save_file(
                    _without_overlaps(tensors), temporary, metadata={"format": "pt", **metadata}
                )
            else:
                torch.save({name: _compact(tensor) for name, tensor in tensors.items()}, temporary)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror or error}") from None


def _without_overlaps(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied where two share memory, which a .safetensors does not allow."""
    separate, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_ptr()):
        start = tensor.data_ptr()
        contiguous = tensor.contiguous()
        separate[name] = (
            contiguous.clone() if start < end and contiguous.data_ptr() == start else contiguous
        )
        end = max(end, start + tensor.nbytes)
    return separate


def _compact(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own size: a pickle would hold all of a larger storage."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def listed(what: str, names: list[str]) -> str:
    """How many names there are, and the first four: "missing 2 (a, b) "; "" if there are none."""
    if not names:
        return ""
    shown = ", ".join(ascii(name)[1:-1][:100] for name in names[:4])
    return f"{what} {len(names)} ({shown}{', ...' if len(names) > 4 else ''}) "
