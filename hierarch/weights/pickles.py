"""Reading pickles without running code.

A pickle names functions and classes ("globals") that `pickle.load` would import and call. Here none
is imported. Those that checkpoints need, such as numpy's for an array, are replaced by stand-ins,
which turn the array's bytes into a tensor; any other is an error that names it.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hierarch.errors import WeightsError

TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
"""In the first bytes of a file that `torch.save` wrote before version 1.6."""
MAX_DIMS = 64
"""Dimensions of an array; numpy's own limit."""

_DTYPES = {
    "b1": torch.bool,
    **{f"i{size}": getattr(torch, f"int{8 * size}") for size in (1, 2, 4, 8)},
    **{f"u{size}": getattr(torch, f"uint{8 * size}") for size in (1, 2, 4, 8)},
    **{f"f{size}": getattr(torch, f"float{8 * size}") for size in (2, 4, 8)},
}

_safe_globals_lock = threading.Lock()


class _NotPlain(ValueError):
    """A pickle holds what no checkpoint should."""


class _Refused(ValueError):
    """A pickle names a global that is not allowed."""


class Array:
    """Stands in for `numpy.ndarray`. The state of the array sets `tensor`."""

    tensor: Tensor

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        self.tensor = _tensor(raw, dtype, shape, is_fortran=bool(is_fortran))


class DType:
    """Stands in for `numpy.dtype`, if the dtype is one of real numbers, such as "f4"."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if code not in _DTYPES:
            raise _NotPlain(f"a numpy array of dtype {code[:20]!r}")
        self.dtype = _DTYPES[code]
        self.big_endian = False

    def __setstate__(self, state: Any) -> None:
        self.big_endian = state[1] in (">", b">")


def _tensor(raw: Any, dtype: Any, shape: Any, *, is_fortran: bool) -> Tensor:
    """The bytes of an array as a tensor. Raises `_NotPlain` unless they fit dtype and shape."""
    if isinstance(raw, str):  # written by Python 2
        raw = raw.encode("latin1")
    fits = (
        isinstance(raw, bytes | bytearray)
        and isinstance(dtype, DType)
        and isinstance(shape, tuple)
        and len(shape) <= MAX_DIMS
        and all(type(n) is int and n >= 0 for n in shape)
        and math.prod(shape) * dtype.dtype.itemsize == len(raw)
    )
    if not fits:
        raise _NotPlain("a numpy array whose bytes do not fit its shape and dtype")
    flat = torch.empty(0, dtype=dtype.dtype)
    if raw:
        flat = torch.frombuffer(bytearray(raw), dtype=dtype.dtype)
    if dtype.big_endian and flat.numel():
        size = dtype.dtype.itemsize
        flat = (
            flat.view(torch.uint8).view(-1, size).flip(1).contiguous().view(dtype.dtype).flatten()
        )
    if is_fortran:
        return flat.view(shape[::-1]).permute(*range(len(shape))[::-1]).contiguous()
    return flat.view(shape)


def _stand_ins() -> dict[str, Any]:
    """Stand-ins by the names of the globals that a checkpoint may ask for.

    They are created for each file, since a pickle can set attributes of the globals it asks for.
    """

    class ArrayHere(Array):
        pass

    class DTypeHere(DType):
        pass

    class Namespace:
        """Stands in for the arguments of a training script, which are dropped."""

        def __setstate__(self, state: Any) -> None:
            pass

    def reconstruct(*_: Any) -> Array:
        return ArrayHere()

    def scalar(dtype: Any, raw: Any) -> Any:
        return _tensor(raw, dtype, (), is_fortran=False).item()

    def frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
        array = ArrayHere()
        array.tensor = _tensor(raw, dtype, shape, is_fortran=order == "F")
        return array

    def no_bytes() -> bytes:
        return b""

    found: dict[str, Any] = {
        "builtins.bytes": no_bytes,
        "__builtin__.bytes": no_bytes,
        "numpy.ndarray": ArrayHere,
        "numpy.dtype": DTypeHere,
        "argparse.Namespace": Namespace,
    }
    for core in ("numpy.core", "numpy._core"):
        found |= {
            f"{core}.multiarray._reconstruct": reconstruct,
            f"{core}.multiarray.scalar": scalar,
            f"{core}.numeric._frombuffer": frombuffer,
        }
    return found


class _Unpickler(pickle.Unpickler):
    """Reads what `pickle.dump` wrote, with stand-ins and plain containers as its only globals."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")

        def encode(text: str, encoding: str = "latin1") -> bytes:
            return text.encode("latin1")

        self.allowed = _stand_ins() | {
            "collections.OrderedDict": OrderedDict,
            "_codecs.encode": encode,  # of bytes, in protocols before 3
            "builtins.set": set,
            "__builtin__.set": set,
        }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.allowed:
            raise _Refused(f"{module}.{name}")
        return self.allowed[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        raise _NotPlain("a reference to another file")


def read_pickle(path: Path) -> Any:
    """Read a file that `torch.save` or `pickle.dump` wrote. Numpy arrays become `Array`.

    Raises `WeightsError` if the file cannot be read, is damaged, or names a global that could run
    code; the message names the global.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if head.startswith(b"PK") or TORCH_MAGIC in head:
                return _saved_by_torch(path)
            rest = file.read() if path.is_file() else b""  # a device may have no end
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {first_line(error)}") from None
    return _saved_by_pickle(path, head + rest)


def _saved_by_pickle(path: Path, data: bytes) -> Any:
    try:
        _check_memo(data)
        return _Unpickler(data).load()
    except _Refused as error:
        raise _refused(path, [str(error)]) from None
    except _NotPlain as error:
        raise WeightsError(f"{path}: is no plain checkpoint: it holds {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its operations meet
        raise WeightsError(f"{path}: is no checkpoint, or damaged: {first_line(error)}") from None


def _check_memo(data: bytes) -> None:
    """Raise `ValueError` if a pickle would make the unpickler allocate more than the file's size.

    The memo, an array, is as long as the largest index in it: no index may exceed the number of
    operations before it. `genops` parses the pickle without executing it, and raises `ValueError`
    for a length beyond the end of the file.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            raise ValueError(f"it stores an object under the index {argument}")


def _saved_by_torch(path: Path) -> Any:
    try:
        return _torch_load(path)
    except pickle.UnpicklingError:
        stand_ins = _stand_ins()
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # not a zip file, or too damaged to be listed
            named = []
        if not named or not stand_ins.keys() >= {*named}:
            raise _refused(path, [name for name in named if name not in stand_ins]) from None
    # a list that all threads share: meanwhile, another thread's torch.load may use the stand-ins
    with (
        _safe_globals_lock,
        torch.serialization.safe_globals([(value, name) for name, value in stand_ins.items()]),
    ):
        try:
            return _torch_load(path)
        except pickle.UnpicklingError:
            raise _refused(path, []) from None


def _torch_load(path: Path) -> Any:
    for mmap in (True, False):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError:
            raise
        except _NotPlain as error:
            raise WeightsError(f"{path}: is no plain checkpoint: it holds {error}") from None
        except Exception as error:  # a damaged pickle raises whatever its operations meet
            if mmap and "mmap can only be used" in str(error):  # a file of before torch 1.6
                continue
            raise WeightsError(f"{path}: cannot be read: {first_line(error)}") from None
    raise AssertionError("the second attempt returns or raises")


def _refused(path: Path, named: list[str]) -> WeightsError:
    """The error for a pickle that asks for these globals, or for some that are not known."""
    asked = ", ".join(ascii(name)[1:-1][:100] for name in named[:4])
    what = f"it asks for {asked}" if named else "it is damaged, or holds more than tensors"
    return WeightsError(f"{path}: is no plain checkpoint: {what}, which could run code when read")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
