"""VAN as its authors have it (Visual-Attention-Network/VAN-Classification)."""

from __future__ import annotations

from hierarch.weights.layout import CONV_1X1, Layout
from hierarch.weights.names import Row, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import BLOCK, LINEAR, NORMS

_LAYER = "block{i+1}.{j}"
_GATE = f"{_LAYER}.attn.spatial_gating_unit"


def _linear(ours: str, theirs: str) -> list[Row]:
    """A linear layer, which is a convolution of 1x1 there."""
    weight = row(f"{ours}.weight", f"{theirs}.weight", CONV_1X1)
    return [weight, row(f"{ours}.bias", f"{theirs}.bias")]


register_layout(
    Layout(
        "van",
        "van",  # of four stages, as all that are published: the last one's norm is the network's
        [
            *rows("stem", "patch_embed1", "proj.*", "norm.*"),
            row("stages.{i+1}.downsample.conv.*", "patch_embed{i+2}.proj.*"),
            row("stages.{i+1}.downsample.out_norm.*", "patch_embed{i+2}.norm.*"),
            row("norm.*", "norm4.*"),
            row("stages.{i+1}.downsample.norm.*", "norm{i+1}.*"),
            *_linear(f"{BLOCK}.mixer.proj_1", f"{_LAYER}.attn.proj_1"),
            row(f"{BLOCK}.mixer.conv0.conv.*", f"{_GATE}.conv0.*"),
            row(f"{BLOCK}.mixer.conv_spatial.conv.*", f"{_GATE}.conv_spatial.*"),
            *_linear(f"{BLOCK}.mixer.conv1", f"{_GATE}.conv1"),
            *_linear(f"{BLOCK}.mixer.proj_2", f"{_LAYER}.attn.proj_2"),
            row(f"{BLOCK}.layer_scale1.gamma", f"{_LAYER}.layer_scale_1"),
            row(f"{BLOCK}.layer_scale2.gamma", f"{_LAYER}.layer_scale_2"),
            *rows(BLOCK, _LAYER, *NORMS),
            *_linear(f"{BLOCK}.mlp.fc1", f"{_LAYER}.mlp.fc1"),
            row(f"{BLOCK}.mlp.conv.conv.*", f"{_LAYER}.mlp.dwconv.dwconv.*"),
            *_linear(f"{BLOCK}.mlp.fc2", f"{_LAYER}.mlp.fc2"),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "block1.0.attn.spatial_gating_unit.conv0.weight" in names,
    )
)
