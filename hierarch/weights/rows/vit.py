"""The rows of timm's ViTs: of each kind of block, with each set of tokens outside of the grid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from hierarch.weights.layout import FLAT_GRID, flat_grid_after
from hierarch.weights.names import Conversion, Row, row, rows
from hierarch.weights.rows.swin import LINEAR, MLP, NORMS

_OURS, _THEIRS = "stages.0.blocks.{j}", "blocks.{j}"

_AROUND = [
    row("stem.proj.*", "patch_embed.proj.*"),
    row("position_embedding.table", "pos_embed", FLAT_GRID),
    row("extra_tokens.class_token", "cls_token"),
    row("extra_tokens.distillation_token", "dist_token"),
    row("extra_tokens.registers", "reg_token"),
    row("norm.*", "norm.*"),
    row("head.norm.*", "fc_norm.*"),
    *rows("head.fc", "head", *LINEAR),
    *rows("head.fc_distilled", "head_dist", *LINEAR),
]
_SEQUENTIAL = [
    *rows(f"{_OURS}.mixer", f"{_THEIRS}.attn", "qkv.*", "proj.*"),
    *(row(f"{_OURS}.layer_scale{n}.gamma", f"{_THEIRS}.ls{n}.gamma") for n in (1, 2)),
    *rows(_OURS, _THEIRS, *NORMS, *MLP),
]


def _split(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    dim = tensors[0].shape[1]
    return [part for x in tensors for part in (x[: -3 * dim], x[-3 * dim :])]


def _joined(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [torch.cat([*pair]) for pair in zip(tensors[::2], tensors[1::2], strict=True)]


_IN_PROJ = Conversion(to_theirs=_joined, to_ours=_split)
"""Ours: the first layer of an MLP, and that of queries, keys and values: weights, then biases if
both have them. Theirs: one layer."""


def _parallel(*kinds: str) -> list[Row]:
    """Rows of a block whose first layers have these parameters in one."""
    layers = ("mlp.fc1", "mixer.qkv")
    return [
        row(
            tuple(f"{_OURS}.{layer}.{kind}" for kind in kinds for layer in layers),
            tuple(f"{_THEIRS}.in_proj.{kind}" for kind in kinds),
            _IN_PROJ,
        ),
        row(f"{_OURS}.mlp.fc1.bias", f"{_THEIRS}.mlp_bias"),
        row(f"{_OURS}.mlp.fc2.*", f"{_THEIRS}.mlp_out_proj.*"),
        row(f"{_OURS}.mixer.proj.*", f"{_THEIRS}.attn_out_proj.*"),
        row(f"{_OURS}.norm.*", f"{_THEIRS}.in_norm.*"),
        row(f"{_OURS}.layer_scale.gamma", f"{_THEIRS}.ls.gamma"),
    ]


BLOCKS = {
    "": (_SEQUENTIAL, "attn.qkv.weight"),
    "_parallel": (_parallel(*LINEAR), "in_proj.bias"),
    "_parallel_unbiased": (_parallel("weight"), "mlp_bias"),
}
"""The kinds of blocks: their rows, and a name of timm's that only they have."""
EXTRA_TOKENS = {"": 0, "_token": 1, "_distilled": 2}
"""Sets of tokens outside of the grid: how many of them have a position. Beside registers, and
without a class token, none has."""


def vit(block: str, extra: str) -> list[Row]:
    """The rows of a kind of ViT."""
    count = EXTRA_TOKENS[extra]
    ours = ("extra_tokens.position", "position_embedding.table")
    position = [row(ours, "pos_embed", flat_grid_after(count))] if count else []
    return [*position, *BLOCKS[block][0], *_AROUND]


def is_vit(names: Collection[str], *, block: str, extra: str) -> bool:
    """True for the names of a kind of ViT."""
    without = "reg_token" in names or "cls_token" not in names
    found = "" if without else "_distilled" if "dist_token" in names else "_token"
    return "pos_embed" in names and f"blocks.0.{BLOCKS[block][1]}" in names and found == extra


def fits_vit(ours: Mapping[str, Tensor], *, block: str) -> bool:
    """True for our weights of a kind of ViT, of two whose blocks have the same parts."""
    biased = "stages.0.blocks.0.mixer.qkv.bias" in ours
    return not block or biased == (block == "_parallel")
