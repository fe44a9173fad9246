"""The rows that the libraries' Swin layouts share: what differs is where blocks stand."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hierarch.mixers.cosine_window_attention import CosineWindowAttentionSpec, log_offsets
from hierarch.mixers.window_attention import WindowAttentionSpec
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Pair, pair
from hierarch.weights.names import Row, row

AttentionSpec = WindowAttentionSpec | CosineWindowAttentionSpec

BLOCK = "stages.{i}.blocks.{j}"
"""Ours."""


V1 = ("qkv.*", "proj.*", "relative_position_bias_table")
V2 = ("q_bias", "v_bias", "logit_scale", "cpb_mlp.*")


def attention_rows(theirs: str, *names: str) -> list[Row]:
    """Shifted-window attention under their name for it."""
    return [row(f"{BLOCK}.mixer.{name}", f"{theirs}.{name}") for name in names]


def named_alike(theirs: str, *names: str) -> list[Row]:
    """What is named alike inside of a block."""
    return [row(f"{BLOCK}.{name}.*", f"{theirs}.{name}.*") for name in names]


def merging_rows(ours: str, theirs: str) -> list[Row]:
    return [row(f"{ours}.{name}.*", f"{theirs}.{name}.*") for name in ("reduction", "norm")]


def attentions(spec: BackboneSpec) -> Iterator[tuple[int, int, AttentionSpec]]:
    """(i, j, mixer) of each block with attention in windows."""
    for stage in spec.plan():
        for j, mixer in enumerate(stage.mixers):
            if isinstance(mixer, AttentionSpec):
                yield stage.index, j, mixer


def coordinates(mixer: AttentionSpec, window: Pair) -> dict[str, Tensor]:
    """Swin V2's buffer of log-spaced offsets, (1, 2h-1, 2w-1, 2)."""
    if not isinstance(mixer, CosineWindowAttentionSpec):
        return {}
    h, w = window
    offsets = log_offsets(window, pair(mixer.pretrained_window_size or window))
    return {"relative_coords_table": offsets.view(1, 2 * h - 1, 2 * w - 1, 2)}
