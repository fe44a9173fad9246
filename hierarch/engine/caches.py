"""Results that are kept: masks until a weight changes, and on a GPU tensors that follow from sizes.

On a CPU, masks are gathered from a table of weights. On a GPU, each of a dozen small operators
costs the processor as much time as a large one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from hierarch.engine.conditions import (
    inside,
    not_cpu_inference,
    not_per_token,
    not_registered,
    observed,
)
from hierarch.engine.seam import Refusal, way
from hierarch.nn.cut import Cut, Kind, kinds, kinds_by_axis
from hierarch.nn.window_mixer import OTHER_REGION, KindMasks, MaskedWindowMixer, shift_mask
from hierarch.spec.grid import tokens

Made = TypeVar("Made")


class Cache(Generic[Made]):
    """Results by key, those that were used last, up to a number of bytes in all."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: dict[Hashable, tuple[Made, int]] = {}
        """In the order of their last use."""
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Made], nbytes: Callable[[Made], int]) -> Made:
        """The result for a key, made if it is not there."""
        with self._lock:
            if key in self._entries:
                self._entries[key] = found = self._entries.pop(key)
                return found[0]
        made = make()
        size = nbytes(made)
        with self._lock:
            if size <= self.max_bytes and key not in self._entries:
                while self.nbytes + size > self.max_bytes:
                    self.nbytes -= self._entries.pop(next(iter(self._entries)))[1]
                self._entries[key] = made, size
                self.nbytes += size
        return made

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.nbytes = 0


# masks

masks = MaskedWindowMixer.masks
"""The definition."""
MAX_MASK_BYTES = 64 << 20
"""Bytes of all masks that are kept, enough for Swin-L at 384x384. What does not fit is made at each
call."""
MANY_SLOTS = 100
"""In a window of more slots, adding two masks is little beside attention."""


class Summed(Mapping[Kind, Tensor]):
    """The masks of large windows: the position bias and the mask of the shift are kept, and their
    sum for a kind of window is made when it is asked for.

    `bias`: (1, heads, N, N). `regions`: (kinds, 1, N, N), as of `shift_mask`.
    """

    def __init__(self, of_kinds: Sequence[Kind], bias: Tensor, regions: Tensor) -> None:
        self.bias = bias
        self.apart = regions != 0
        self._index = {kind: i for i, kind in enumerate(of_kinds)}

    def __getitem__(self, kind: Kind) -> Tensor:
        apart = self.apart[self._index[kind]]
        return torch.add(self.bias, apart, alpha=OTHER_REGION) if any(kind) else self.bias

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


Kept = tuple[Any, list[Tensor], KindMasks]
"""The sizes and types that masks are for, copies of the weights that they depend on, the masks."""
_kept: weakref.WeakKeyDictionary[nn.Module, Kept] = weakref.WeakKeyDictionary()
_changing = threading.RLock()
"""Held where `_kept` changes, and where all of it is read: the threads of a network share it."""


def mask_bytes() -> int:
    """Bytes of the masks that are kept now."""
    with _changing:
        return sum(_mask_bytes(kept[2]) for kept in _kept.values())


def _mask_bytes(made: KindMasks) -> int:
    # by storage: masks of several kinds may be views of one tensor
    masks = (made.bias, made.apart) if isinstance(made, Summed) else made.values()
    storages = [mask.untyped_storage() for mask in masks if mask is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def clear_masks() -> None:
    with _changing:
        _kept.clear()


def refuses_remembered(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> Refusal | None:
    """Not on a GPU: comparing weights would make the processor wait for it."""
    inner = tuple(mixer.children())
    return (
        not_cpu_inference(like) or inside(not_per_token, *inner) or inside(not_registered, *inner)
    )


@way("remembered", refuses_remembered)
def run_remembered(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> KindMasks:
    """The last masks, unless a weight has changed, in whatever way: it is compared with a copy."""
    weights = mixer.bias_parameters()
    rounded_to = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    dtypes = [like.dtype, rounded_to, *(weight.dtype for weight in weights)]
    key = cut.window, cut.shift, dtypes
    kept = _kept.get(mixer)  # once: another thread may replace it
    if kept and kept[0] == key and all(map(torch.equal, kept[1], weights)):
        return kept[2]
    with _changing:
        _kept.pop(mixer, None)  # before others are made beside them
    made = _made(mixer, cut, like)
    copies = [weight.detach().clone() for weight in weights]
    with _changing:
        _kept.pop(mixer, None)  # another thread's
        if mask_bytes() + _mask_bytes(made) <= MAX_MASK_BYTES:
            _kept[mixer] = key, copies, made
    return made


def _made(mixer: MaskedWindowMixer, cut: Cut, like: Tensor) -> KindMasks:
    of_kinds = kinds(cut.shift)
    large = len(of_kinds) > 1 and tokens(cut.window) > MANY_SLOTS
    bias = mixer.bias(cut.window) if large else None
    if bias is None:
        return masks(mixer, cut, like)
    bias = bias.to(torch.promote_types(bias.dtype, like.dtype))  # as their sum is
    sizes = kinds_by_axis(cut.shift), cut.window, cut.shift
    return Summed(of_kinds, bias, shift_mask(*sizes, device=like.device))


# on a GPU

constants: Cache[Tensor] = Cache(256 << 20)
"""Indices, masks and offsets."""


def refuses_constant(
    make: Callable[..., Tensor], *sizes: Any, device: torch.device
) -> Refusal | None:
    if device.type != "cuda":
        return Refusal("not on a GPU")
    if torch.cuda.is_current_stream_capturing():  # its memory is the graph's
        return Refusal("a CUDA graph is captured")
    return observed()


@way("kept on the GPU", refuses_constant)
def run_constant(make: Callable[..., Tensor], *sizes: Any, device: torch.device) -> Tensor:
    # by stream, since a tensor is ready for what waits in the stream that it was made in
    key = torch.cuda.current_stream(device), make, device, *sizes

    def made() -> Tensor:
        with torch.inference_mode(False):  # training may keep it for a gradient
            return make(*sizes, device=device)

    return constants.get(key, made, lambda made: made.nbytes)
