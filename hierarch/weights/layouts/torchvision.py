"""torchvision: Swin, Swin V2, Video Swin. One flat list: blocks and merging in turn, for images
after the stem."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hierarch.nn.attention import relative_position_index
from hierarch.spec.backbone import BackboneSpec
from hierarch.weights.layout import WITH_KEY_BIAS, Buffers, Layout
from hierarch.weights.names import Row, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import BLOCK, LINEAR, MERGING, NORMS, V1, attentions, coordinates


def _recognizes(v2: bool) -> Callable[[Collection[str]], bool]:
    def check(names: Collection[str]) -> bool:
        return (
            "features.0.0.weight" in names
            and "features.1.0.attn.qkv.weight" in names
            and ("features.1.0.attn.logit_scale" in names) == v2
        )

    return check


def _buffers(spec: BackboneSpec) -> Buffers:
    """Relative position indices, flattened for images, and coordinates (V2)."""
    buffers: Buffers = {}
    for i, j, mixer in attentions(spec):
        window = mixer.window
        prefix = f"features.{2 * i + (spec.axes == 2)}.{j}.attn"
        index = relative_position_index(window)
        buffers[f"{prefix}.relative_position_index"] = index.flatten() if spec.axes == 2 else index
        for name, values in coordinates(mixer, window).items():
            buffers[f"{prefix}.{name}"] = values
    return buffers


_THEIRS = "features.{2i+1}.{j}"
_OF_VIDEOS = "features.{2i}.{j}"


def _table(*blocks: Row) -> list[Row]:
    return [
        row("stem.proj.*", "features.0.0.*"),
        row("stem.norm.*", "features.0.2.*"),
        *blocks,
        *_rest(_THEIRS, merging="features.{2i}"),
    ]


def _rest(block: str, *, merging: str) -> list[Row]:
    return [
        row(f"{BLOCK}.mlp.fc1.*", f"{block}.mlp.0.*"),
        row(f"{BLOCK}.mlp.fc2.*", f"{block}.mlp.3.*"),
        *rows(BLOCK, block, *NORMS),
        *rows("stages.{i}.downsample", merging, *MERGING),
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

register_layout(
    Layout(
        "torchvision",
        "swin3d",
        [
            *rows("stem", "patch_embed", "proj.*", "norm.*"),
            *rows(f"{BLOCK}.mixer", f"{_OF_VIDEOS}.attn", *V1),
            *_rest(_OF_VIDEOS, merging="features.{2i-1}"),
        ],
        lambda names: (
            "patch_embed.proj.weight" in names and "features.0.0.attn.qkv.weight" in names
        ),
        buffers=_buffers,
        axes=3,
        small_map=lambda names: "clamp_first",
    )
)
