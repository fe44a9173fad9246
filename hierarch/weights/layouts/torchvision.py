"""torchvision: Swin, Swin V2. One flat list: the stem, then blocks and merging in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hierarch.nn.attention import relative_position_index
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import pair
from hierarch.weights.layout import WITH_KEY_BIAS, Buffers, Layout
from hierarch.weights.names import Row, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.swin_rows import BLOCK, LINEAR, MERGING, NORMS, V1, attentions, coordinates


def _recognizes(v2: bool) -> Callable[[Collection[str]], bool]:
    def check(names: Collection[str]) -> bool:
        return (
            "features.0.0.weight" in names
            and "features.1.0.attn.qkv.weight" in names
            and ("features.1.0.attn.logit_scale" in names) == v2
        )

    return check


def _buffers(spec: BackboneSpec) -> Buffers:
    """Relative position indices, flattened, and coordinates (V2)."""
    buffers: Buffers = {}
    for i, j, mixer in attentions(spec):
        window = pair(mixer.window_size)
        prefix = f"features.{2 * i + 1}.{j}.attn"
        buffers[f"{prefix}.relative_position_index"] = relative_position_index(window).flatten()
        for name, values in coordinates(mixer, window).items():
            buffers[f"{prefix}.{name}"] = values
    return buffers


_THEIRS = "features.{2i+1}.{j}"


def _table(*blocks: Row) -> list[Row]:
    return [
        row("stem.proj.*", "features.0.0.*"),
        row("stem.norm.*", "features.0.2.*"),
        *blocks,
        row(f"{BLOCK}.mlp.fc1.*", f"{_THEIRS}.mlp.0.*"),
        row(f"{BLOCK}.mlp.fc2.*", f"{_THEIRS}.mlp.3.*"),
        *rows(BLOCK, _THEIRS, *NORMS),
        *rows("stages.{i}.downsample", "features.{2i}", *MERGING),
        row("norm.*", "norm.*"),
        *rows("head.fc", "head", *LINEAR),
    ]


register_layout(
    Layout(
        "torchvision",
        "swin",
        _table(*rows(f"{BLOCK}.mixer", f"{_THEIRS}.attn", *V1)),
        _recognizes(v2=False),
        buffers=_buffers,
    )
)

register_layout(
    Layout(
        "torchvision",
        "swin_v2",
        _table(
            row(
                (f"{BLOCK}.mixer.q_bias", f"{BLOCK}.mixer.v_bias"),
                f"{_THEIRS}.attn.qkv.bias",
                WITH_KEY_BIAS,
            ),
            *rows(
                f"{BLOCK}.mixer",
                f"{_THEIRS}.attn",
                "qkv.weight",
                "proj.*",
                "logit_scale",
                "cpb_mlp.*",
            ),
        ),
        _recognizes(v2=True),
        buffers=_buffers,
    )
)
