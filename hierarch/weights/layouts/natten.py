"""NAT and DiNAT as their authors have them (SHI-Labs/Neighborhood-Attention-Transformer)."""

from __future__ import annotations

from hierarch.weights.layout import BIAS_PER_OFFSET, Layout
from hierarch.weights.names import row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import BLOCK, LINEAR, MLP, NORMS

_LAYER = "levels.{i}.blocks.{j}"

register_layout(
    Layout(
        "natten",
        "nat",
        [
            row("stem.convs.0.*", "patch_embed.proj.0.*"),
            row("stem.proj.*", "patch_embed.proj.1.*"),
            row("stem.norm.*", "patch_embed.norm.*"),
            row("stages.{i+1}.downsample.conv.*", "levels.{i}.downsample.reduction.*"),
            row("stages.{i+1}.downsample.out_norm.*", "levels.{i}.downsample.norm.*"),
            *rows(f"{BLOCK}.mixer", f"{_LAYER}.attn", "qkv.*", "proj.*"),
            row(
                f"{BLOCK}.mixer.relative_position_bias_table",
                f"{_LAYER}.attn.rpb",
                BIAS_PER_OFFSET,
            ),
            row(f"{BLOCK}.layer_scale1.gamma", f"{_LAYER}.gamma1"),
            row(f"{BLOCK}.layer_scale2.gamma", f"{_LAYER}.gamma2"),
            *rows(BLOCK, _LAYER, *NORMS, *MLP),
            row("norm.*", "norm.*"),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "levels.0.blocks.0.attn.rpb" in names,
    )
)
