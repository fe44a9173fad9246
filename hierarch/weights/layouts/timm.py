"""timm: Swin and Swin V2, MetaFormer, ConvNeXt, ViT, MLP-Mixer, ResMLP."""

from __future__ import annotations

from collections.abc import Collection

from hierarch.weights.layout import CONV_1X1, FLAT_GRID, Layout
from hierarch.weights.names import Conversion, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.swin_rows import BLOCK, LINEAR, MERGING, MLP, NORMS, V1, V2

_LAYER = "layers.{i}.blocks.{j}"
_FLAT = "blocks.{j}"
_ONE_STAGE = "stages.0.blocks.{j}"

FROM_CONV_1X1 = Conversion(to_ours=CONV_1X1.to_ours)
"""A linear layer's weight in both libraries, or in theirs a convolution's."""


def _is_swin(names: Collection[str]) -> bool:
    """True if merging opens each layer but the first, or if the head is timm's."""
    merges = {name for name in names if name.endswith(".downsample.reduction.weight")}
    at_the_start = bool(merges) and "layers.0.downsample.reduction.weight" not in merges
    return "patch_embed.proj.weight" in names and (at_the_start or "head.fc.weight" in names)


# before Swin's, whose rows have a name for each weight of a ViT as well
register_layout(
    Layout(
        "timm",
        "vit",
        [
            row("stem.proj.*", "patch_embed.proj.*"),
            row("position_embedding.table", "pos_embed", FLAT_GRID),
            row(f"{_ONE_STAGE}.mixer.qkv.*", f"{_FLAT}.attn.qkv.*"),
            row(f"{_ONE_STAGE}.mixer.proj.*", f"{_FLAT}.attn.proj.*"),
            row(f"{_ONE_STAGE}.layer_scale1.gamma", f"{_FLAT}.ls1.gamma"),
            row(f"{_ONE_STAGE}.layer_scale2.gamma", f"{_FLAT}.ls2.gamma"),
            *rows(_ONE_STAGE, _FLAT, *NORMS, *MLP),
            row("norm.*", "norm.*"),
            row("head.norm.*", "fc_norm.*"),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "pos_embed" in names and "blocks.0.attn.qkv.weight" in names,
    )
)

register_layout(
    Layout(
        "timm",
        "swin",  # as the official layout, but a layer opens with its merging, and the head is ours
        [
            row("stem.*", "patch_embed.*"),
            row("position_embedding.table", "absolute_pos_embed", FLAT_GRID),
            *rows("stages.{i}.downsample", "layers.{i}.downsample", *MERGING),
            *rows(f"{BLOCK}.mixer", f"{_LAYER}.attn", *V1, *V2),
            *rows(BLOCK, _LAYER, *NORMS, *MLP),
            row("norm.*", "norm.*"),
            *rows("head.fc", "head.fc", *LINEAR),
        ],
        _is_swin,
        small_map=lambda names: "clamp",
    )
)

register_layout(
    Layout(
        "timm",
        "metaformer",
        [
            row("stem.proj.*", "stem.conv.*"),
            row("stem.norm.*", "stem.norm.*"),
            *rows("stages.{i}.downsample", "stages.{i}.downsample", "norm.*", "conv.*"),
            row(f"{BLOCK}.mixer.expand.weight", f"{BLOCK}.token_mixer.pwconv1.weight", CONV_1X1),
            row(f"{BLOCK}.mixer.act.*", f"{BLOCK}.token_mixer.act1.*"),
            row(f"{BLOCK}.mixer.mix.conv.*", f"{BLOCK}.token_mixer.dwconv.*"),
            row(f"{BLOCK}.mixer.reduce.weight", f"{BLOCK}.token_mixer.pwconv2.weight", CONV_1X1),
            row(f"{BLOCK}.mixer.qkv.*", f"{BLOCK}.token_mixer.qkv.*"),
            row(f"{BLOCK}.mixer.proj.*", f"{BLOCK}.token_mixer.proj.*"),
            # where the mixer is attention, timm's MLP is linear; elsewhere it is a convolution
            *(
                row(f"{BLOCK}.mlp.{fc}.weight", f"{BLOCK}.mlp.{fc}.weight", conversion, when=when)
                for fc in ("fc1", "fc2")
                for conversion, when in (
                    (FROM_CONV_1X1, f"{BLOCK}.mixer.qkv.weight"),
                    (CONV_1X1, None),
                )
            ),
            *rows(BLOCK, BLOCK, *NORMS, *MLP),
            *(
                row(f"{BLOCK}.{ours}{n}.gamma", f"{BLOCK}.{theirs}{n}.scale")
                for ours, theirs in (
                    ("layer_scale", "layer_scale"),
                    ("residual_scale", "res_scale"),
                )
                for n in (1, 2)
            ),
            row("head.norm.*", "head.norm.*"),
            # PoolFormer as its authors have it, whose norm stands before the mean
            row("norm.*", "head.norm.*"),
            row("head.hidden.fc.*", "head.fc.fc1.*"),
            row("head.hidden.norm.*", "head.fc.norm.*"),
            row("head.fc.*", "head.fc.fc2.*", when="head.hidden.fc.weight"),
            row("head.fc.*", "head.fc.*"),
        ],
        lambda names: "stem.conv.weight" in names and "stages.0.blocks.0.mlp.fc1.weight" in names,
    )
)

register_layout(
    Layout(
        "timm",
        "convnext",
        [
            row("stem.proj.*", "stem.0.*"),
            row("stem.norm.*", "stem.1.*"),
            row("stages.{i}.downsample.norm.*", "stages.{i}.downsample.0.*"),
            row("stages.{i}.downsample.conv.*", "stages.{i}.downsample.1.*"),
            row(f"{BLOCK}.mixer.conv.*", f"{BLOCK}.conv_dw.*"),
            row(f"{BLOCK}.layer_scale.gamma", f"{BLOCK}.gamma"),
            # linear layers, and convolutions in the smallest networks
            *(
                row(f"{BLOCK}.mlp.{fc}.weight", f"{BLOCK}.mlp.{fc}.weight", FROM_CONV_1X1)
                for fc in ("fc1", "fc2")
            ),
            *rows(BLOCK, BLOCK, "norm.*", *MLP),
            row("head.norm.*", "head.norm.*"),
            row("norm.*", "norm_pre.*"),
            row("head.fc.*", "head.fc.*"),
        ],
        lambda names: "stem.0.weight" in names and "stages.0.blocks.0.conv_dw.weight" in names,
    )
)

_AFFINE = Conversion(
    to_theirs=lambda tensors: [tensors[0][None, None]],
    to_ours=lambda tensors: [tensors[0].flatten()],
)

register_layout(
    Layout(
        "timm",
        "mlp_mixer",
        [
            row("stem.proj.*", "stem.proj.*"),
            row(f"{_ONE_STAGE}.mixer.fc1.*", f"{_FLAT}.mlp_tokens.fc1.*"),
            row(f"{_ONE_STAGE}.mixer.fc2.*", f"{_FLAT}.mlp_tokens.fc2.*"),
            row(f"{_ONE_STAGE}.mlp.*", f"{_FLAT}.mlp_channels.*"),
            *rows(_ONE_STAGE, _FLAT, *NORMS),
            row("norm.*", "norm.*"),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "stem.proj.weight" in names and "blocks.0.mlp_tokens.fc1.weight" in names,
    )
)

register_layout(
    Layout(
        "timm",
        "resmlp",
        [
            row("stem.proj.*", "stem.proj.*"),
            row(f"{_ONE_STAGE}.mixer.fc1.*", f"{_FLAT}.linear_tokens.*"),
            row(f"{_ONE_STAGE}.mlp.*", f"{_FLAT}.mlp_channels.*"),
            row(f"{_ONE_STAGE}.layer_scale1.gamma", f"{_FLAT}.ls1"),
            row(f"{_ONE_STAGE}.layer_scale2.gamma", f"{_FLAT}.ls2"),
            *(
                row(f"{ours}{norm}.{here}", f"{theirs}{norm}.{there}", _AFFINE)
                for ours, theirs, norms in (
                    (f"{_ONE_STAGE}.", f"{_FLAT}.", ("norm1", "norm2")),
                    ("", "", ("norm",)),
                )
                for norm in norms
                for here, there in (("weight", "alpha"), ("bias", "beta"))
            ),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "stem.proj.weight" in names and "blocks.0.linear_tokens.weight" in names,
    )
)
