"""MONAI: the encoder of Swin UNETR for volumes, whose layers end in a merging each."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

from hierarch.nn.attention import relative_position_index
from hierarch.spec.backbone import BackboneSpec
from hierarch.weights.layout import Buffers, Layout
from hierarch.weights.names import Conversion, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import BLOCK, NORMS, V1, attentions

_THEIRS = "layers{i+1}.0.blocks.{j}"
_MERGING = "stages.{i}.downsample"
_ORDER = [0, 1, 2, 4, 3, 5, 6, 7]
"""Of the eight tokens that become one: theirs has (0, 0, 1) before (1, 1, 0). Its own inverse."""


def _reordered(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """(..., 8C) -> (..., 8C)."""
    tokens = rearrange(tensors[0], "... (eight c) -> ... eight c", eight=len(_ORDER))
    return [rearrange(tokens[..., _ORDER, :], "... eight c -> ... (eight c)")]


OTHER_ORDER = Conversion(to_theirs=_reordered, to_ours=_reordered)


def _buffers(spec: BackboneSpec) -> Buffers:
    """Relative position indices."""
    return {
        f"layers{i + 1}.0.blocks.{j}.attn.relative_position_index": relative_position_index(
            mixer.window
        )
        for i, j, mixer in attentions(spec)
    }


register_layout(
    Layout(
        "monai",
        "swin_unetr",
        [
            *rows("stem", "patch_embed", "proj.*", "norm.*"),
            *rows(f"{BLOCK}.mixer", f"{_THEIRS}.attn", *V1),
            row(f"{BLOCK}.mlp.fc1.*", f"{_THEIRS}.mlp.linear1.*"),
            row(f"{BLOCK}.mlp.fc2.*", f"{_THEIRS}.mlp.linear2.*"),
            *rows(BLOCK, _THEIRS, *NORMS),
            row(f"{_MERGING}.reduction.*", "layers{i}.0.downsample.reduction.*", OTHER_ORDER),
            row(f"{_MERGING}.norm.*", "layers{i}.0.downsample.norm.*", OTHER_ORDER),
        ],
        lambda names: "layers1.0.blocks.0.attn.qkv.weight" in names,
        spellings=[(r"\.mlp\.fc([12])\.", r".mlp.linear\1.")],  # of self-supervised training
        submodule="swinViT.",
        outside=("encoder", "decoder", "out."),
        buffers=_buffers,
        axes=3,
        small_map=lambda names: "clamp_first",
    )
)
