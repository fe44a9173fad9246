"""`Layout`: a library's names for the weights of one kind of network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import SmallMap
from hierarch.weights.names import Conversion, Row, from_ours

Buffers = dict[str, Tensor]

STEM = "stem.proj.weight"
"""Our name of a weight that every network has."""


def no_buffers(spec: BackboneSpec) -> Buffers:
    """The default of `Layout.buffers`: none."""
    return {}


def _pads(names: Collection[str]) -> SmallMap:
    return "pad"


def fits_all(ours: Mapping[str, Tensor]) -> bool:
    """The default of `Layout.fits`: any weights of these names."""
    return True


@dataclass(frozen=True)
class Layout:
    """One library's names for the weights of one kind of network.

    Buffers that follow from the spec (relative position indices, masks) are in no row: they are
    ignored when a checkpoint is read, and computed by `buffers` when one is written.
    Raises `TypeError` if no row has a name for `stem.proj.weight`, by which a network is located
    in a checkpoint.

    >>> from hierarch.weights.names import rows
    >>> ours = Layout(
    ...     library="ours",
    ...     network="swin",
    ...     rows=rows("stem", "patchify", "proj.*", "norm.*"),
    ...     recognizes=lambda names: "patchify.proj.weight" in names,
    ... )
    >>> ours.name, ours.stems
    ('ours:swin', ('patchify.proj.weight',))
    """

    library: str
    """The name of the library, and of the module or entry point that registers the layout."""
    network: str
    """Which of the library's networks: "swin". A layout's full name is "library:network"."""
    rows: Sequence[Row]
    """Our names and theirs. The first row that matches a name is used."""
    recognizes: Callable[[Collection[str]], bool]
    """True if the names of a state dict are those of this layout."""
    fits: Callable[[Mapping[str, Tensor]], bool] = fits_all
    """True if our weights are of this layout's kind, where two have the same names of ours for
    weights of other shapes."""
    spellings: Sequence[tuple[str, str]] = ()
    """Regular expressions for other names of the same weights, such as those of older versions,
    and their replacements."""
    submodule: str = ""
    """The prefix, such as "swin.", of the backbone inside the library's classifier."""
    outside: tuple[str, ...] = ()
    """Prefixes of the names that stand beside `submodule`. If a network has none of them, its
    names are written without `submodule`."""
    buffers: Callable[[BackboneSpec], Buffers] = no_buffers
    """The buffers in the library's own state dict, computed from the spec."""
    axes: int | None = 2
    """Axes of the images of the library's network; None for any number."""
    small_map: Callable[[Collection[str]], SmallMap] = _pads
    """What the library does with a map smaller than a window, given the names of a state dict."""

    def __post_init__(self) -> None:
        if not from_ours(self.rows, [STEM])[0]:
            raise TypeError(f"layout {self.name!r} needs a row for {STEM}")

    @property
    def name(self) -> str:
        """The full name: "timm:swin"."""
        return f"{self.library}:{self.network}"

    @property
    def stems(self) -> tuple[str, ...]:
        """Their names of `stem.proj.weight`: inside of the submodule, and without it."""
        [link], _ = from_ours(self.rows, [STEM])
        [stem] = link.theirs
        return (self.submodule + stem, stem) if self.submodule else (stem,)

    def spell(self, names: Iterable[str]) -> dict[str, str]:
        """Each name, and the name that the rows have for it: no submodule, current spelling."""
        spelled = {}
        for name in names:
            key = name.removeprefix(self.submodule)
            for pattern, replacement in self.spellings:
                key = re.sub(pattern, replacement, key)
            spelled[name] = key
        return spelled

    def written(self, names: Iterable[str]) -> dict[str, str]:
        """Each of the rows' names, and the name in the library's own state dict."""
        names = list(names)
        inside = any(name.startswith(self.outside) for name in names)
        prefix = self.submodule if inside else ""
        return {n: n if n.startswith(self.outside) else prefix + n for n in names}


def _chunks(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    [joined] = tensors
    return joined.chunk(3)


def _joined(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [torch.cat(list(tensors))]


SPLIT_QKV = Conversion(to_theirs=_chunks, to_ours=_joined)
"""Ours: queries, keys and values in one tensor, (3C, C) or (3C,). Theirs: three tensors."""


def _with_key_bias(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    q, v = tensors
    return [torch.cat([q, torch.zeros_like(q), v])]


def _without_key_bias(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    q, _, v = tensors[0].chunk(3)
    return [q, v]


WITH_KEY_BIAS = Conversion(to_theirs=_with_key_bias, to_ours=_without_key_bias)
"""Ours: the biases of queries and of values, (C,) each. Theirs: one (3C,), whose middle third, the
bias of keys, the forward pass overwrites with zeros."""

LAYER_SCALES = Conversion(
    to_theirs=lambda tensors: [torch.stack(list(tensors))],
    to_ours=lambda tensors: [*tensors[0].unbind()],
)
"""Ours: a factor per channel of each of a block's halves, (C,) each. Theirs: (2, C)."""

SPLIT_GATE = Conversion(
    to_theirs=lambda tensors: [*tensors[0].chunk(2)], to_ours=lambda tensors: _joined(tensors)
)
"""Ours: the gate and the value of a gated linear unit in one layer, (2D, C) or (2D,). Theirs: two
layers."""


def has_gate(ours: Mapping[str, Tensor]) -> bool:
    """True if the first block's channel mixer is a gated linear unit: its first layer has twice
    the width that its second one takes."""
    wide, narrow = (ours.get(f"stages.0.blocks.0.mlp.fc{n}.weight") for n in (1, 2))
    return wide is not None and narrow is not None and len(wide) == 2 * narrow.shape[1]


BIAS_PER_OFFSET = Conversion(
    to_theirs=lambda tensors: [
        rearrange(tensors[0], "(h w) heads -> heads h w", h=math.isqrt(len(tensors[0])))
    ],
    to_ours=lambda tensors: [rearrange(tensors[0], "heads h w -> (h w) heads")],
)
"""Ours: a bias per offset on both axes, and per head, (h*w, heads). Theirs: (heads, h, w)."""

FLIPPED_BIAS_PER_OFFSET = Conversion(
    to_theirs=lambda tensors: [
        BIAS_PER_OFFSET.to_theirs(tensors)[0].flip(1, 2),
    ],
    to_ours=lambda tensors: BIAS_PER_OFFSET.to_ours([tensors[0].flip(1, 2)]),
)
"""Ours: a bias per offset from key to query, as in `BIAS_PER_OFFSET`. Theirs: per offset from query
to key, (heads, h, w), as TensorFlow's MaxViT has it."""

CONV_1X1 = Conversion(
    to_theirs=lambda tensors: [tensors[0][:, :, None, None]],
    to_ours=lambda tensors: [tensors[0].flatten(1)],
)
"""Ours: a linear layer's weight, (out, in). Theirs: a 1x1 convolution's, (out, in, 1, 1)."""

FLAT_GRID = Conversion(to_theirs=lambda tensors: [tensors[0].flatten(1, -2)])
"""Ours: a vector per position, (1, h, w, C). Theirs: (1, h*w, C), which is reshaped to the model's
grid when it is loaded."""


def flat_grid_after(count: int) -> Conversion:
    """Ours: positions of `count` tokens outside of the grid, (1, count, C), and of the grid's,
    (1, h, w, C). Theirs: all of them in one row, (1, count + h*w, C)."""

    def to_theirs(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        extra, grid = tensors
        return [torch.cat([extra, grid.flatten(1, -2)], 1)]

    return Conversion(
        to_theirs=to_theirs,
        to_ours=lambda tensors: [tensors[0][:, :count], tensors[0][:, count:]],
    )
