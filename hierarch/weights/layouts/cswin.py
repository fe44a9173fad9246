"""CSWin Transformer as its authors have it (microsoft/CSWin-Transformer)."""

from __future__ import annotations

from hierarch.weights.layout import Layout
from hierarch.weights.names import row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import BLOCK, LINEAR, MLP, NORMS

_LAYER = "stage{i+1}.{j}"

register_layout(
    Layout(
        "cswin",
        "cswin",
        [
            row("stem.proj.*", "stage1_conv_embed.0.*"),
            row("stem.norm.*", "stage1_conv_embed.2.*"),
            row("stages.{i+1}.downsample.conv.*", "merge{i+1}.conv.*"),
            row("stages.{i+1}.downsample.out_norm.*", "merge{i+1}.norm.*"),
            *rows(f"{BLOCK}.mixer", _LAYER, "qkv.*", "proj.*"),
            row(f"{BLOCK}.mixer.attns.{{k}}.get_v.conv.*", f"{_LAYER}.attns.{{k}}.get_v.*"),
            *rows(BLOCK, _LAYER, *NORMS, *MLP),
            row("norm.*", "norm.*"),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "stage1_conv_embed.0.weight" in names,
    )
)
