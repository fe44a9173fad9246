"""torchvision: Swin, Swin V2. One flat list: the stem, then blocks and merging in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hierarch.nn.attention import relative_position_index
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import pair
from hierarch.weights.layouts.base import WITH_KEY_BIAS, Buffers, Layout
from hierarch.weights.layouts.swin import (
    BLOCK,
    V1,
    attention_rows,
    attentions,
    coordinates,
    merging_rows,
    named_alike,
)
from hierarch.weights.names import Row, row


def _marks(v2: bool) -> Callable[[Collection[str]], bool]:
    def recognizes(names: Collection[str]) -> bool:
        return (
            "features.0.0.weight" in names
            and "features.1.0.attn.qkv.weight" in names
            and ("features.1.0.attn.logit_scale" in names) == v2
        )

    return recognizes


def _buffers(spec: BackboneSpec) -> Buffers:
    """Relative positions, flat, and their coordinates (V2)."""
    buffers: Buffers = {}
    for i, j, mixer in attentions(spec):
        window = pair(mixer.window_size)
        prefix = f"features.{2 * i + 1}.{j}.attn"
        buffers[f"{prefix}.relative_position_index"] = relative_position_index(window).flatten()
        for name, values in coordinates(mixer, window).items():
            buffers[f"{prefix}.{name}"] = values
    return buffers


_THEIRS = "features.{2i+1}.{j}"


def _rows(*blocks: Row) -> list[Row]:
    return [
        row("stem.proj.*", "features.0.0.*"),
        row("stem.norm.*", "features.0.2.*"),
        *blocks,
        row(f"{BLOCK}.mlp.fc1.*", f"{_THEIRS}.mlp.0.*"),
        row(f"{BLOCK}.mlp.fc2.*", f"{_THEIRS}.mlp.3.*"),
        *named_alike(_THEIRS, "norm1", "norm2"),
        *merging_rows("stages.{i}.downsample", "features.{2i}"),
        row("norm.*", "norm.*"),
        row("head.fc.*", "head.*"),
    ]


SWIN = Layout(
    "torchvision",
    "swin",
    _rows(*attention_rows(f"{_THEIRS}.attn", *V1)),
    _marks(v2=False),
    buffers=_buffers,
)

SWIN_V2 = Layout(
    "torchvision",
    "swin_v2",
    _rows(
        row(
            (f"{BLOCK}.mixer.q_bias", f"{BLOCK}.mixer.v_bias"),
            f"{_THEIRS}.attn.qkv.bias",
            WITH_KEY_BIAS,
        ),
        *attention_rows(f"{_THEIRS}.attn", "qkv.weight", "proj.*", "logit_scale", "cpb_mlp.*"),
    ),
    _marks(v2=True),
    buffers=_buffers,
)
