"""transformers: Swin, Swin V2 and Dinat, each ForImageClassification, Model and Backbone; and
DINOv3ViT, Model and Backbone."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from hierarch.spec.backbone import BackboneSpec
from hierarch.weights.layout import (
    BIAS_PER_OFFSET,
    FLAT_GRID,
    LAYER_SCALES,
    SPLIT_GATE,
    SPLIT_QKV,
    Buffers,
    Layout,
    has_gate,
)
from hierarch.weights.names import Row, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.swin import BLOCK, LINEAR, MERGING, NORMS

_BLOCK = "encoder.layers.{i}.blocks.{j}"


def _recognizes(v2: bool) -> Callable[[Collection[str]], bool]:
    def check(names: Collection[str]) -> bool:
        first = "encoder.layers.0.blocks.0.attention."
        return (
            "embeddings.patch_embeddings.projection.weight" in names
            and any(name.startswith(first) for name in names)
            and any(name.endswith(".logit_scale") for name in names) == v2
        )

    return check


def _has_outputs(names: Collection[str]) -> bool:
    """True for a Backbone, which has a norm for each output."""
    return any(name.startswith("hidden_states_norms.") for name in names)


def _unused_norm(spec: BackboneSpec) -> Buffers:
    """The initial values of a Backbone's last norm, which none of its outputs passes through."""
    if spec.head is not None or not spec.output_norm:
        return {}
    dim = spec.stages[-1].dim
    return {"layernorm.weight": torch.ones(dim), "layernorm.bias": torch.zeros(dim)}


def _table(blocks: list[Row]) -> list[Row]:
    return [
        row("stem.proj.*", "embeddings.patch_embeddings.projection.*"),
        row("stem.norm.*", "embeddings.norm.*"),
        row("position_embedding.table", "embeddings.position_embeddings", FLAT_GRID),
        *rows("stages.{i+1}.downsample", "encoder.layers.{i}.downsample", *MERGING),
        *blocks,
        row(f"{BLOCK}.norm1.*", f"{_BLOCK}.layernorm_before.*"),
        row(f"{BLOCK}.norm2.*", f"{_BLOCK}.layernorm_after.*"),
        row("norm.*", "layernorm.*"),
        *rows("head.fc", "classifier", *LINEAR),
    ]


def _parts(*names: str) -> tuple[str, ...]:
    return tuple(f"{_BLOCK}.attention.{name}" for name in names)


register_layout(
    Layout(
        "huggingface",
        "swin",
        [
            *_table(
                [
                    row(
                        f"{BLOCK}.mixer.qkv.*",
                        _parts("q_proj.*", "k_proj.*", "v_proj.*"),
                        SPLIT_QKV,
                    ),
                    row(f"{BLOCK}.mixer.proj.*", _parts("o_proj.*")),
                    row(
                        f"{BLOCK}.mixer.relative_position_bias_table",
                        _parts("relative_position_bias.relative_position_bias_table"),
                    ),
                    row(f"{BLOCK}.mlp.*", f"{_BLOCK}.mlp.*"),
                ]
            ),
            row("stages.{i}.norm.*", "hidden_states_norms.stage{i+1}.*"),
        ],
        _recognizes(v2=False),
        spellings=[
            # transformers before version 5
            (r"\.attention\.self\.query\.", ".attention.q_proj."),
            (r"\.attention\.self\.key\.", ".attention.k_proj."),
            (r"\.attention\.self\.value\.", ".attention.v_proj."),
            (r"\.attention\.self\.relative", ".attention.relative_position_bias.relative"),
            (r"\.attention\.output\.dense\.", ".attention.o_proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
        ],
        submodule="swin.",
        outside=("classifier.", "hidden_states_norms."),
        buffers=_unused_norm,
        small_map=lambda names: "pad_shift" if _has_outputs(names) else "pad",
    )
)

register_layout(
    Layout(
        "huggingface",
        "swin_v2",
        _table(
            [
                row(
                    f"{BLOCK}.mixer.qkv.weight",
                    _parts("self.query.weight", "self.key.weight", "self.value.weight"),
                    SPLIT_QKV,
                ),
                row(f"{BLOCK}.mixer.q_bias", _parts("self.query.bias")),
                row(f"{BLOCK}.mixer.v_bias", _parts("self.value.bias")),
                row(f"{BLOCK}.mixer.logit_scale", _parts("self.logit_scale")),
                row(f"{BLOCK}.mixer.cpb_mlp.*", _parts("self.continuous_position_bias_mlp.*")),
                row(f"{BLOCK}.mixer.proj.*", _parts("output.dense.*")),
                row(f"{BLOCK}.mlp.fc1.*", f"{_BLOCK}.intermediate.dense.*"),
                row(f"{BLOCK}.mlp.fc2.*", f"{_BLOCK}.output.dense.*"),
            ]
        ),
        _recognizes(v2=True),
        submodule="swinv2.",
        outside=("classifier.",),
        small_map=lambda names: "clamp",
    )
)


_LAYER = "encoder.levels.{i}.layers.{j}"

register_layout(
    Layout(
        "huggingface",
        "dinat",
        [
            row("stem.convs.0.*", "embeddings.patch_embeddings.projection.0.*"),
            row("stem.proj.*", "embeddings.patch_embeddings.projection.1.*"),
            row("stem.norm.*", "embeddings.norm.*"),
            row("stages.{i+1}.downsample.conv.*", "encoder.levels.{i}.downsample.reduction.*"),
            row("stages.{i+1}.downsample.out_norm.*", "encoder.levels.{i}.downsample.norm.*"),
            row(
                f"{BLOCK}.mixer.qkv.*",
                tuple(f"{_LAYER}.attention.self.{name}.*" for name in ("query", "key", "value")),
                SPLIT_QKV,
            ),
            row(
                f"{BLOCK}.mixer.relative_position_bias_table",
                f"{_LAYER}.attention.self.rpb",
                BIAS_PER_OFFSET,
            ),
            row(f"{BLOCK}.mixer.proj.*", f"{_LAYER}.attention.output.dense.*"),
            row(f"{BLOCK}.norm1.*", f"{_LAYER}.layernorm_before.*"),
            row(f"{BLOCK}.norm2.*", f"{_LAYER}.layernorm_after.*"),
            row(f"{BLOCK}.mlp.fc1.*", f"{_LAYER}.intermediate.dense.*"),
            row(f"{BLOCK}.mlp.fc2.*", f"{_LAYER}.output.dense.*"),
            row(
                (f"{BLOCK}.layer_scale1.gamma", f"{BLOCK}.layer_scale2.gamma"),
                f"{_LAYER}.layer_scale_parameters",
                LAYER_SCALES,
            ),
            row("norm.*", "layernorm.*"),
            *rows("head.fc", "classifier", *LINEAR),
            row("stages.{i}.norm.*", "hidden_states_norms.stage{i+1}.*"),
        ],
        lambda names: "encoder.levels.0.layers.0.attention.self.rpb" in names,
        submodule="dinat.",
        outside=("classifier.", "hidden_states_norms."),
        buffers=_unused_norm,
    )
)


_OURS, _THEIRS = "stages.0.blocks.{j}", "model.layer.{j}"
_WIDENING = {
    False: [row(f"{_OURS}.mlp.fc1.*", f"{_THEIRS}.mlp.up_proj.*")],
    True: [
        row(
            f"{_OURS}.mlp.fc1.*",
            (f"{_THEIRS}.mlp.gate_proj.*", f"{_THEIRS}.mlp.up_proj.*"),
            SPLIT_GATE,
        )
    ],
}
"""The first layer of an MLP, and of one with SwiGLU."""


def _mask_token(spec: BackboneSpec) -> Buffers:
    """The initial value of the token for masked patches, which only pretraining reads."""
    return {"embeddings.mask_token": torch.zeros(1, 1, spec.in_dim)}


for _network, _gated in (("dinov3", False), ("dinov3_swiglu", True)):
    register_layout(
        Layout(
            "huggingface",
            _network,
            [
                row("stem.proj.*", "embeddings.patch_embeddings.*"),
                row("extra_tokens.class_token", "embeddings.cls_token"),
                row("extra_tokens.registers", "embeddings.register_tokens"),
                row(
                    f"{_OURS}.mixer.qkv.weight",
                    tuple(f"{_THEIRS}.attention.{name}_proj.weight" for name in "qkv"),
                    SPLIT_QKV,
                ),
                row(f"{_OURS}.mixer.q_bias", f"{_THEIRS}.attention.q_proj.bias"),
                row(f"{_OURS}.mixer.v_bias", f"{_THEIRS}.attention.v_proj.bias"),
                row(f"{_OURS}.mixer.proj.*", f"{_THEIRS}.attention.o_proj.*"),
                row(f"{_OURS}.layer_scale1.gamma", f"{_THEIRS}.layer_scale1.lambda1"),
                row(f"{_OURS}.layer_scale2.gamma", f"{_THEIRS}.layer_scale2.lambda1"),
                *_WIDENING[_gated],
                row(f"{_OURS}.mlp.fc2.*", f"{_THEIRS}.mlp.down_proj.*"),
                *rows(_OURS, _THEIRS, *NORMS),
                row("norm.*", "norm.*"),
            ],
            lambda names, gated=_gated: (  # type: ignore[misc]
                "model.layer.0.layer_scale1.lambda1" in names
                and ("model.layer.0.mlp.gate_proj.weight" in names) == gated
            ),
            fits=lambda ours, gated=_gated: has_gate(ours) == gated,  # type: ignore[misc]
            spellings=[(r"^layer\.", "model.layer.")],  # transformers before version 5
            buffers=_mask_token,
        )
    )
