"""mmdetection and mmsegmentation: Swin with a norm per output. Merging by `nn.Unfold`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from einops import rearrange
from torch import Tensor

from hierarch.nn.attention import relative_position_index
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import per_axis
from hierarch.weights.layout import FLAT_GRID, Buffers, Layout
from hierarch.weights.names import Conversion, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import BLOCK, NORMS, V1, attentions


def _is_mmdetection(names: Collection[str]) -> bool:
    return "patch_embed.projection.weight" in names and any(".w_msa." in name for name in names)


def _channels_first(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [rearrange(tensors[0], "... (q p c) -> ... (c p q)", p=2, q=2)]


def _channels_last(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [rearrange(tensors[0], "... (c p q) -> ... (q p c)", p=2, q=2)]


UNFOLDED = Conversion(to_theirs=_channels_first, to_ours=_channels_last)
"""Ours: the 4C input channels of merging, by column, row, then channel. Theirs: in `nn.Unfold`'s
order, by channel, row, then column."""


def _buffers(spec: BackboneSpec) -> Buffers:
    """The relative position indices."""
    return {
        f"stages.{i}.blocks.{j}.attn.w_msa.relative_position_index": relative_position_index(
            per_axis(mixer.window_size)
        )
        for i, j, mixer in attentions(spec)
    }


register_layout(
    Layout(
        "mmdetection",
        "swin",
        [
            row("stem.proj.*", "patch_embed.projection.*"),
            row("stem.norm.*", "patch_embed.norm.*"),
            row("position_embedding.table", "absolute_pos_embed", FLAT_GRID),
            row("stages.{i+1}.downsample.norm.*", "stages.{i}.downsample.norm.*", UNFOLDED),
            row(
                "stages.{i+1}.downsample.reduction.*", "stages.{i}.downsample.reduction.*", UNFOLDED
            ),
            *rows(f"{BLOCK}.mixer", f"{BLOCK}.attn.w_msa", *V1),
            row(f"{BLOCK}.mlp.fc1.*", f"{BLOCK}.ffn.layers.0.0.*"),
            row(f"{BLOCK}.mlp.fc2.*", f"{BLOCK}.ffn.layers.1.*"),
            *rows(BLOCK, BLOCK, *NORMS),
            row("stages.{i}.norm.*", "norm{i}.*"),
        ],
        _is_mmdetection,
        buffers=_buffers,
        small_map=lambda names: "pad_shift",
    )
)
