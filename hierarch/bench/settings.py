"""The settings of a benchmark: a mode, an image size, a batch size and a dtype each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from hierarch.errors import BenchError
from hierarch.spec.grid import Sides, checked_size

MODES = ("forward", "training")
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Setting:
    """The call that all contenders of one rotation make."""

    mode: str
    """ "forward": eval mode, torch.inference_mode(). "training": forward, loss, backward, SGD."""
    size: Sides
    batch: int
    dtype: str
    threads: int
    device: str = "cpu"

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = DTYPES[self.dtype]
        return dtype


def settings(
    *,
    modes: Iterable[str],
    sizes: Iterable[int | Sequence[int]] | None,
    batches: Iterable[int],
    dtypes: Iterable[str],
    threads: int | None,
    device: str,
    default_size: Sides,
) -> Iterator[Setting]:
    """Every combination, once. Without `sizes`, at `default_size`; without `threads`, with torch's.

    Raises `BenchError` or `SpecError` for an invalid value.
    """
    if device not in DEVICES:
        raise BenchError(f"device {device[:80]!r}: should be one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchError("device 'cuda': torch finds no CUDA device here")
    threads = torch.get_num_threads() if threads is None else whole("threads", threads)
    combinations = product(
        _each("mode", modes, MODES),
        [
            checked_size(size, axes=len(default_size))
            for size in ([default_size] if sizes is None else sizes)
        ],
        [whole("batch", batch) for batch in batches],
        _each("dtype", dtypes, DTYPES),
    )
    return (
        Setting(*values, threads=threads, device=device) for values in dict.fromkeys(combinations)
    )


def whole(what: str, value: Any, *, least: int = 1, most: int = 65_536) -> int:
    """The value. Raises `BenchError` unless it is an integer from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:
        raise BenchError(f"{what} {value!r}: should be an integer from {least} to {most}")
    return value


def _each(what: str, values: Iterable[str], known: Iterable[str]) -> list[str]:
    checked = list(values)
    for value in checked:
        if value not in known:
            raise BenchError(f"{what} {value[:80]!r}: should be one of {', '.join(known)}")
    return checked
