"""microsoft/Swin-Transformer: Swin, Swin V2, Swin-MLP. A layer ends in its merging."""

from __future__ import annotations

import re
from collections.abc import Collection

from hierarch.errors import WeightsError
from hierarch.mixers.window_attention import WindowAttentionSpec
from hierarch.nn.attention import relative_position_index
from hierarch.nn.window_mixer import shift_mask
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim
from hierarch.spec.grid import Sides, fit, per_axis
from hierarch.weights.layout import FLAT_GRID, Buffers, Layout
from hierarch.weights.names import row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import (
    BLOCK,
    LINEAR,
    MERGING,
    MLP,
    NORMS,
    V1,
    V2,
    AttentionSpec,
    attentions,
    coordinates,
)

_FIRST_MERGE = "layers.0.downsample.reduction.weight"


def _is_official(names: Collection[str]) -> bool:
    merges = any(name.endswith(".downsample.reduction.weight") for name in names)
    return (
        "patch_embed.proj.weight" in names
        and any(name.startswith("layers.0.blocks.0.") for name in names)
        and "head.fc.weight" not in names
        and (_FIRST_MERGE in names or not merges)
    )


def _buffers(spec: BackboneSpec) -> Buffers:
    """Relative position indices, coordinates (V2) and attention masks, at the spec's image size."""
    grids = [stage.grid for stage in claim(spec, per_axis(spec.input_size)).stages]
    buffers: Buffers = {}
    for i, j, mixer in attentions(spec):
        window, shift = _cut(mixer, grids[i])
        prefix = f"layers.{i}.blocks.{j}"
        buffers[f"{prefix}.attn.relative_position_index"] = relative_position_index(window)
        for name, values in coordinates(mixer, window).items():
            buffers[f"{prefix}.attn.{name}"] = values
        if any(shift):
            windows = grids[i][0] // window[0], grids[i][1] // window[1]
            # the published code adds what the buffer holds: zeros keep no tokens apart
            masks = shift_mask(windows, window, shift if mixer.shift_mask else (0, 0))
            buffers[f"{prefix}.attn_mask"] = masks.squeeze(1)
    return buffers


def _cut(mixer: AttentionSpec, grid: Sides) -> tuple[Sides, Sides]:
    """The window and shift that the published code uses for a grid.

    Raises `WeightsError` if its masks or position tables do not exist for that grid.
    """
    own = per_axis(mixer.window_size)
    window, shift = fit(grid, own, per_axis(mixer.shift_size), "clamp_both")
    if any(n % w for n, w in zip(grid, window, strict=True)):
        raise WeightsError(
            f"the official layout holds masks for one image size, and windows of {window} do not "
            f"fill a grid of {grid}; set the spec's input_size"
        )
    if window != own and isinstance(mixer, WindowAttentionSpec):
        raise WeightsError(
            f"the official layout has a position table for a window of {window} on a grid of "
            f"{grid}, and the model's is for {own}; set the spec's input_size"
        )
    return window, shift


_THEIRS = "layers.{i}.blocks.{j}"

register_layout(
    Layout(
        "official",
        "swin",
        [
            row("stem.*", "patch_embed.*"),
            row("position_embedding.table", "absolute_pos_embed", FLAT_GRID),
            *rows("stages.{i+1}.downsample", "layers.{i}.downsample", *MERGING),
            *rows(f"{BLOCK}.mixer", f"{_THEIRS}.attn", *V1, *V2),
            *rows(f"{BLOCK}.mixer", f"{_THEIRS}.spatial_mlp", *LINEAR),
            *rows(BLOCK, _THEIRS, *NORMS, *MLP),
            row("norm.*", "norm.*"),
            *rows("head.fc", "head", *LINEAR),
        ],
        _is_official,
        # SimMIM's name
        spellings=[(re.escape(".rpe_mlp."), ".cpb_mlp.")],
        buffers=_buffers,
        small_map=lambda names: "clamp_both",
    )
)
