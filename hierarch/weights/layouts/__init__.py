"""How each library names the weights of the same network, one file a library.

A layout says, row by row, what our names are called there. Buffers that can be worked out
(relative position indices, masks) are in no row: they are ignored when read, and made anew when
written for a library that holds them.
"""

from __future__ import annotations

from collections.abc import Collection

from hierarch.weights.layouts import huggingface, timm, torchvision
from hierarch.weights.layouts.base import Layout as Layout
from hierarch.weights.layouts.mmdetection import MMDETECTION
from hierarch.weights.layouts.official import OFFICIAL
from hierarch.weights.names import row


def _is_own(names: Collection[str]) -> bool:
    return "stem.proj.weight" in names and any(n.startswith("stages.0.blocks.0.") for n in names)


OWN = Layout(
    "hierarch",
    "any",
    [row(f"{top}.*", f"{top}.*") for top in ("stem", "position_embedding", "norm", "head")]
    + [row("stages.{i}.*", "stages.{i}.*")],
    _is_own,
)

LAYOUTS = (
    OWN,
    OFFICIAL,
    timm.VIT,
    timm.SWIN,
    timm.METAFORMER,
    timm.CONVNEXT,
    timm.MLP_MIXER,
    timm.RESMLP,
    torchvision.SWIN,
    torchvision.SWIN_V2,
    huggingface.SWIN,
    huggingface.SWIN_V2,
    MMDETECTION,
)

LIBRARIES = tuple(dict.fromkeys(layout.library for layout in LAYOUTS))
"""What `layout` may be."""
