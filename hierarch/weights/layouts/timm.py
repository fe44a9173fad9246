"""timm: Swin and Swin V2, MetaFormer, ConvNeXt and ConvNeXt V2, InceptionNeXt, PVT v2, Twins,
FocalNet, DaViT, MaxViT, ViT, DINOv3, MLP-Mixer, ResMLP."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial

import torch

from hierarch.weights.layout import CONV_1X1, FLAT_GRID, Layout, has_gate
from hierarch.weights.names import Conversion, Values, row, rows
from hierarch.weights.registry import register_layout
from hierarch.weights.rows.eva import eva, is_eva
from hierarch.weights.rows.maxvit import MAXVIT, is_maxvit
from hierarch.weights.rows.swin import BLOCK, LINEAR, MERGING, MLP, NORMS, V1, V2
from hierarch.weights.rows.vit import BLOCKS, EXTRA_TOKENS, fits_vit, is_vit, vit

_LAYER = "layers.{i}.blocks.{j}"
_FLAT = "blocks.{j}"
_ONE_STAGE = "stages.0.blocks.{j}"
_REDUCED = ("q.*", "kv.*", "sr.*", "norm.*", "proj.*")
"""Names inside of attention to a reduced map."""

FROM_CONV_1X1 = Conversion(to_ours=CONV_1X1.to_ours)
"""A linear layer's weight in both libraries, or in theirs a convolution's."""


def _is_swin(names: Collection[str]) -> bool:
    """True if merging opens each layer but the first, or if the head is timm's."""
    merging = re.compile(r"layers\.\d+\.downsample\.reduction\.weight")
    merges = {*filter(merging.fullmatch, names)}
    at_the_start = bool(merges) and "layers.0.downsample.reduction.weight" not in merges
    return "patch_embed.proj.weight" in names and (at_the_start or "head.fc.weight" in names)


# before Swin's, whose rows have a name for each weight of a ViT as well
for _block in BLOCKS:
    for _extra in EXTRA_TOKENS:
        register_layout(
            Layout(
                "timm",
                f"vit{_block}{_extra}",
                vit(_block, _extra),
                partial(is_vit, block=_block, extra=_extra),
                fits=partial(fits_vit, block=_block),
            )
        )

for _network, _gated in (("eva", False), ("eva_swiglu", True)):
    register_layout(
        Layout(
            "timm",
            _network,
            eva(gated=_gated),
            partial(is_eva, gated=_gated),
            fits=lambda ours, gated=_gated: has_gate(ours) == gated,  # type: ignore[misc]
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

register_layout(
    Layout(
        "timm",
        "inception_next",
        [
            row("stem.proj.*", "stem.0.*"),
            row("stem.norm.*", "stem.1.*"),
            row("stages.{i}.downsample.norm.*", "stages.{i}.downsample.0.*"),
            row("stages.{i}.downsample.conv.*", "stages.{i}.downsample.1.*"),
            *(
                row(f"{BLOCK}.mixer.{branch}.conv.*", f"{BLOCK}.token_mixer.{branch}.*")
                for branch in ("dwconv_hw", "dwconv_w", "dwconv_h")
            ),
            row(f"{BLOCK}.layer_scale.gamma", f"{BLOCK}.gamma"),
            *(
                row(f"{BLOCK}.mlp.{fc}.weight", f"{BLOCK}.mlp.{fc}.weight", CONV_1X1)
                for fc in ("fc1", "fc2")
            ),
            *rows(BLOCK, BLOCK, "norm.*", *MLP),
            row("head.hidden.fc.*", "head.fc1.*"),
            row("head.hidden.norm.*", "head.norm.*"),
            *rows("head.fc", "head.fc2", *LINEAR),
        ],
        lambda names: "stages.0.blocks.0.token_mixer.dwconv_hw.weight" in names,
    )
)

register_layout(
    Layout(
        "timm",
        "pvt_v2",  # of four stages, as all that are published: the last one's norm is the network's
        [
            row("stem.*", "patch_embed.*"),
            row("norm.*", "stages.3.norm.*"),
            row("stages.{i}.downsample.conv.*", "stages.{i}.downsample.proj.*"),
            row("stages.{i}.downsample.out_norm.*", "stages.{i}.downsample.norm.*"),
            row("stages.{i+1}.downsample.norm.*", "stages.{i}.norm.*"),
            *rows(f"{BLOCK}.mixer", f"{BLOCK}.attn", *_REDUCED),
            row(f"{BLOCK}.mlp.conv.conv.*", f"{BLOCK}.mlp.dwconv.*"),
            *rows(BLOCK, BLOCK, *NORMS, *MLP),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "patch_embed.proj.weight" in names and "stages.0.norm.weight" in names,
    )
)

_TWINS = "blocks.{i}.{j}"

register_layout(
    Layout(
        "timm",
        "twins",
        [
            row("stem.*", "patch_embeds.0.*"),
            row("stages.{i}.downsample.conv.*", "patch_embeds.{i}.proj.*"),
            row("stages.{i}.downsample.out_norm.*", "patch_embeds.{i}.norm.*"),
            row("stages.{i}.position.conv.*", "pos_block.{i}.proj.0.*"),
            *rows(f"{BLOCK}.mixer", f"{_TWINS}.attn", "qkv.*", *_REDUCED),
            *rows(BLOCK, _TWINS, *NORMS, *MLP),
            row("norm.*", "norm.*"),
            *rows("head.fc", "head", *LINEAR),
        ],
        lambda names: "patch_embeds.0.proj.weight" in names,
    )
)

register_layout(
    Layout(
        "timm",
        "focalnet",
        [
            row("stem.*", "stem.*"),
            row("stages.{i}.downsample.conv.*", "layers.{i}.downsample.proj.*"),
            row("stages.{i}.downsample.out_norm.*", "layers.{i}.downsample.norm.*"),
            row(
                f"{BLOCK}.mixer.focal_layers.{{k}}.conv.weight",
                f"{_LAYER}.modulation.focal_layers.{{k}}.0.weight",
            ),
            *(
                row(f"{BLOCK}.{ours}.{layer}.weight", f"{_LAYER}.{theirs}.{layer}.weight", CONV_1X1)
                for ours, theirs, layers in (
                    ("mixer", "modulation", ("f", "h", "proj")),
                    ("mlp", "mlp", ("fc1", "fc2")),
                )
                for layer in layers
            ),
            *rows(f"{BLOCK}.mixer", f"{_LAYER}.modulation", *("f.*", "h.*", "proj.*", "norm.*")),
            # the norms come after the branches where timm's networks have a factor per channel
            *(
                row(f"{BLOCK}.norm{n}.*", f"{_LAYER}.norm{n}{post}.*", when=when)
                for n in (1, 2)
                for post, when in (("_post", f"{BLOCK}.layer_scale{n}.gamma"), ("", None))
            ),
            *(row(f"{BLOCK}.layer_scale{n}.gamma", f"{_LAYER}.ls{n}.gamma") for n in (1, 2)),
            *rows(BLOCK, _LAYER, *MLP),
            row("norm.*", "norm.*"),
            *rows("head.fc", "head.fc", *LINEAR),
        ],
        lambda names: "layers.0.blocks.0.modulation.f.weight" in names,
    )
)


def _rolled(count: int) -> Values:
    """Thirds of a tensor in another order: each `count` places further."""
    return lambda tensors: [torch.cat(tensors[0].chunk(3)[-count:] + tensors[0].chunk(3)[:-count])]


_VALUES_FIRST = Conversion(to_theirs=_rolled(1), to_ours=_rolled(2))
"""Ours: queries, keys and values in one tensor. Theirs, in attention among channels: what has the
role of values, then of queries, then of keys."""
_BLOCK_OF_TWO = "stages.{i}.blocks.{j}"
_HALVES = tuple((f"stages.{{i}}.blocks.{{2j+{n}}}", f"{_BLOCK_OF_TWO}.{n}") for n in (0, 1))
"""Ours: blocks that alternate in their mixers. Theirs: blocks of two."""

register_layout(
    Layout(
        "timm",
        "davit",
        [
            row("stem.proj.*", "stem.conv.*"),
            row("stem.norm.*", "stem.norm.*"),
            *rows("stages.{i}.downsample", "stages.{i}.downsample", "norm.*", "conv.*"),
            row(f"{_HALVES[1][0]}.mixer.qkv.*", f"{_HALVES[1][1]}.attn.qkv.*", _VALUES_FIRST),
            *(
                each
                for ours, theirs in _HALVES
                for each in (
                    *rows(f"{ours}.mixer", f"{theirs}.attn", "qkv.*", "proj.*"),
                    *(row(f"{ours}.position{n}.conv.*", f"{theirs}.cpe{n}.proj.*") for n in (1, 2)),
                    *rows(ours, theirs, *NORMS, *MLP),
                )
            ),
            row("norm.*", "norm_pre.*"),
            row("head.norm.*", "head.norm.*"),
            *rows("head.fc", "head.fc", *LINEAR),
        ],
        lambda names: "stages.0.blocks.0.0.cpe1.proj.weight" in names,
    )
)

register_layout(Layout("timm", "maxvit", MAXVIT, is_maxvit))

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
