"""Checkpoint files: read without running code, written whole or not at all."""

from __future__ import annotations

import os
import pickle
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

Source = str | os.PathLike[str] | Mapping[str, Any]

CONTAINERS = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "module")
"""Under which of its keys a checkpoint may hold the weights; the first one that it has is taken."""


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors, still in the file where it can be mapped into memory."""

    tensors: dict[str, Tensor]
    name: str = ""
    """The file's name without its suffix."""
    metadata: dict[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    """What else the file holds under keys of its own."""


def read(source: Source) -> Checkpoint:
    """A state dict, or a file of one (.safetensors, .pth, .pt, .bin), without its wrapping.

    Raises `WeightsError` for a file that cannot be read, that holds no named tensors, or that
    could run code.
    """
    if isinstance(source, Mapping):
        return _unwrapped(dict(source))
    path = Path(source)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    found = _pickle(path)
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, not a state dict")
    return _unwrapped(dict(found), name=path.stem)


def _safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as error:
        raise WeightsError(f"{path}: cannot be read: {_first_line(error)}") from None
    return _unwrapped(tensors, name=path.stem, metadata=metadata)


def _pickle(path: Path) -> Any:
    for mmap in (True, False):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError:
            raise WeightsError(
                f"{path}: is no plain checkpoint: it is damaged, or holds something other than "
                "tensors, which could run code when read"
            ) from None
        except Exception as error:  # a damaged pickle ends in whatever its operations meet
            if mmap and "mmap can only be used" in str(error):  # a file of before torch 1.6
                continue
            raise WeightsError(f"{path}: cannot be read: {_first_line(error)}") from None
    raise AssertionError("the second attempt returns or raises")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _unwrapped(
    given: dict[Any, Any], *, name: str = "", metadata: dict[str, str] | None = None
) -> Checkpoint:
    beside: list[str] = []
    while wrapper := next((c for c in CONTAINERS if isinstance(given.get(c), Mapping)), None):
        beside += [str(key)[:100] for key in given if key != wrapper]
        given = dict(given[wrapper])
    odd = [
        str(key)
        for key, value in given.items()
        if not isinstance(key, str) or not isinstance(value, Tensor)
    ]
    if odd or not given:
        raise WeightsError(f"not a state dict: {listed('no named tensors', odd) or 'it is empty'}")
    return Checkpoint(given, name, metadata or {}, tuple(beside))


def write(path: str | os.PathLike[str], tensors: dict[str, Tensor], **metadata: str) -> None:
    """Write a state dict as .safetensors, or as what `torch.load` reads (.pth, .pt, .bin).

    Raises `WeightsError` for another suffix, and where the file cannot be written.
    """
    target = Path(path)
    if target.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise WeightsError(f"{target}: should end in .safetensors, .pth, .pt or .bin")
    try:
        with writing(target) as temporary:
            if target.suffix == ".safetensors":
                save_file(_apart(tensors), temporary, metadata={"format": "pt", **metadata})
            else:
                torch.save({name: _alone(tensor) for name, tensor in tensors.items()}, temporary)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror or error}") from None


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with no memory in common, which a .safetensors does not allow."""
    apart, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_ptr()):
        start = tensor.data_ptr()
        solid = tensor.contiguous()
        apart[name] = solid.clone() if start < end and solid.data_ptr() == start else solid
        end = max(end, start + tensor.nbytes)
    return apart


def _alone(tensor: Tensor) -> Tensor:
    """A tensor that shares its memory with no other, since a pickle stores all of that memory."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def listed(what: str, names: list[str]) -> str:
    """A few names and how many there are, in one line; nothing where there is none."""
    if not names:
        return ""
    shown = ", ".join(ascii(name)[1:-1][:100] for name in names[:4])
    return f"{what} {len(names)} ({shown}{', ...' if len(names) > 4 else ''}) "
