"""The rows of MaxViT in timm, whose blocks of three are blocks here.

A block of timm is an MBConv, attention in windows and attention in a grid. The first MBConv of a
stage is here its downsampling, so that ours come in threes of window, grid, and the next MBConv.
"""

from __future__ import annotations

from collections.abc import Collection

from hierarch.weights.layout import CONV_1X1, FLIPPED_BIAS_PER_OFFSET
from hierarch.weights.names import Row, row, rows
from hierarch.weights.rows.swin import LINEAR, MLP, NORMS

_OURS = "stages.{i}.blocks"
_TABLE = "relative_position_bias_table"


def is_maxvit(names: Collection[str]) -> bool:
    """True for the networks that timm has from TensorFlow, whose head has the last norm."""
    return (
        f"stages.0.blocks.0.attn_block.attn.rel_pos.{_TABLE}" in names
        and "norm.weight" not in names
    )


def _inverted_residual(ours: str, theirs: str) -> list[Row]:
    layers = {
        "expand": "conv1_1x1",
        "squeeze.fc1": "se.fc1",
        "squeeze.fc2": "se.fc2",
        "reduce": "conv3_1x1",
    }
    return [
        *(
            each
            for here, there in layers.items()
            for each in (
                row(f"{ours}.{here}.weight", f"{theirs}.{there}.weight", CONV_1X1),
                row(f"{ours}.{here}.bias", f"{theirs}.{there}.bias"),
            )
        ),
        row(f"{ours}.conv.weight", f"{theirs}.conv2_kxk.weight"),
        *rows(ours, theirs, *NORMS),
    ]


def _attention(ours: str, theirs: str) -> list[Row]:
    return [
        *rows(f"{ours}.mixer", f"{theirs}.attn", "qkv.*", "proj.*"),
        row(f"{ours}.mixer.{_TABLE}", f"{theirs}.attn.rel_pos.{_TABLE}", FLIPPED_BIAS_PER_OFFSET),
        *rows(ours, theirs, *NORMS, *MLP),
    ]


def _mbconvs() -> list[Row]:
    first, further = "stages.{i}.blocks.0.conv", "stages.{i}.blocks.{j+1}.conv"
    opening, block = "stages.{i}.downsample", f"{_OURS}.{{3j+2}}"
    return [
        row(f"{opening}.norm.*", f"{first}.pre_norm.*"),
        row(f"{opening}.shortcut.weight", f"{first}.shortcut.expand.weight", CONV_1X1),
        row(f"{opening}.shortcut.bias", f"{first}.shortcut.expand.bias"),
        *_inverted_residual(f"{opening}.branch", first),
        row(f"{block}.norm1.*", f"{further}.pre_norm.*"),
        *_inverted_residual(f"{block}.mixer", further),
    ]


MAXVIT = [
    row("stem.convs.0.*", "stem.conv1.*"),
    row("stem.norms.0.*", "stem.norm1.*"),
    row("stem.proj.*", "stem.conv2.*"),
    *_mbconvs(),
    *_attention(f"{_OURS}.{{3j}}", f"{_OURS}.{{j}}.attn_block"),
    *_attention(f"{_OURS}.{{3j+1}}", f"{_OURS}.{{j}}.attn_grid"),
    row("head.norm.*", "head.norm.*"),
    row("head.hidden.fc.*", "head.pre_logits.fc.*"),
    *rows("head.fc", "head.fc", *LINEAR),
]
