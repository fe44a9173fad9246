"""What the Swin layouts of several libraries share: names inside of a block, and buffers."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hierarch.mixers.cosine_window_attention import CosineWindowAttentionSpec, log_offsets
from hierarch.mixers.window_attention import WindowAttentionSpec
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides, per_axis

AttentionSpec = WindowAttentionSpec | CosineWindowAttentionSpec

BLOCK = "stages.{i}.blocks.{j}"
"""Our name of a block."""

V1 = ("qkv.*", "proj.*", "relative_position_bias_table")
"""Names inside of window attention, ours and theirs."""
V2 = ("q_bias", "v_bias", "logit_scale", "cpb_mlp.*")
"""Names that Swin V2's attention has as well."""
NORMS = ("norm1.*", "norm2.*")
MLP = ("mlp.*",)
MERGING = ("reduction.*", "norm.*")
LINEAR = ("weight", "bias")
"""A linear layer's names, and not those of a projection head that replaces it."""


def attentions(spec: BackboneSpec) -> Iterator[tuple[int, int, AttentionSpec]]:
    """(stage index, block index, mixer) of each block with window attention."""
    for stage in spec.plan():
        for j, mixer in enumerate(stage.mixers):
            if isinstance(mixer, AttentionSpec):
                yield stage.index, j, mixer


def coordinates(mixer: AttentionSpec, window: Sides) -> dict[str, Tensor]:
    """Swin V2's buffer of log-spaced offsets, (1, 2h-1, 2w-1, 2)."""
    if not isinstance(mixer, CosineWindowAttentionSpec):
        return {}
    h, w = window
    offsets = log_offsets(window, per_axis(mixer.pretrained_window_size or window))
    return {"relative_coords_table": offsets.view(1, 2 * h - 1, 2 * w - 1, 2)}
