"""The rows of timm's `Eva` without learned positions, such as DINOv3."""

from __future__ import annotations

from collections.abc import Collection

from hierarch.weights.layout import SPLIT_GATE
from hierarch.weights.names import Row, row, rows
from hierarch.weights.rows.swin import LINEAR, MLP, NORMS

_OURS, _THEIRS = "stages.0.blocks.{j}", "blocks.{j}"
_GATE = [
    row(
        f"{_OURS}.mlp.fc1.{kind}",
        (f"{_THEIRS}.mlp.fc1_g.{kind}", f"{_THEIRS}.mlp.fc1_x.{kind}"),
        SPLIT_GATE,
    )
    for kind in LINEAR
]


def is_eva(names: Collection[str], *, gated: bool) -> bool:
    """True for an `Eva` whose only positions are rotary; `gated` for one with SwiGLU."""
    return (
        {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= {*names}
        and not {"pos_embed", "blocks.0.ls1.gamma"} & {*names}
        and ("blocks.0.mlp.fc1_g.weight" in names) == gated
    )


def eva(*, gated: bool) -> list[Row]:
    """The rows; `gated` for a network with SwiGLU, whose gate is a layer of its own in timm."""
    return [
        row("stem.proj.*", "patch_embed.proj.*"),
        row("extra_tokens.class_token", "cls_token"),
        row("extra_tokens.registers", "reg_token"),
        *rows(f"{_OURS}.mixer", f"{_THEIRS}.attn", "qkv.*", "q_bias", "v_bias", "proj.*"),
        row(f"{_OURS}.layer_scale1.gamma", f"{_THEIRS}.gamma_1"),
        row(f"{_OURS}.layer_scale2.gamma", f"{_THEIRS}.gamma_2"),
        *(_GATE if gated else ()),
        *rows(_OURS, _THEIRS, *NORMS, *MLP),
        row("norm.*", "norm.*"),
        row("head.norm.*", "fc_norm.*"),
        *rows("head.fc", "head", *LINEAR),
    ]
