"""How each library names the weights of the same network.

A layout says, for each of our names, what it is called there. Buffers that can be worked out
(relative position indices, masks) are in no layout: they are ignored when read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

WORKED_OUT = re.compile(r"(^|\.)(relative_position_index|relative_coords_table|attn_mask)$")
"""Buffers that publications store and that no weight depends on."""


@dataclass(frozen=True)
class Layout:
    """One library's names."""

    name: str
    rules: Sequence[Rule]
    """What rewrites our name, step by step, into its name."""
    recognizes: Callable[[Collection[str]], bool]
    spellings: Sequence[Rule] = ()
    """What rewrites its other names for the same weights: older ones, a prefix."""
    splits_qkv: bool = False
    """Whether queries, keys and values are three weights."""

    def theirs(self, key: str) -> str:
        """What our weight `key` is called in this layout."""
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key

    def pieces(self, key: str) -> tuple[str, ...]:
        """The names of our weight's parts here, to be joined along the first axis: one, mostly."""
        name = self.theirs(key)
        if self.splits_qkv and ".qkv." in name:
            return tuple(name.replace(".qkv.", f".{part}_proj.") for part in "qkv")
        return (name,)

    def spelled(self, name: str) -> str:
        """Its name for a weight as `theirs` has it."""
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name


def _stage_before(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) - 1}.downsample"


def _is_official(keys: Collection[str]) -> bool:
    return "patch_embed.proj.weight" in keys and not _is_timm(keys)


def _is_timm(keys: Collection[str]) -> bool:
    """timm merges at the start of a layer, and so has no merging in its first one."""
    merges = {key for key in keys if key.endswith(".downsample.reduction.weight")}
    at_the_start = bool(merges) and "layers.0.downsample.reduction.weight" not in merges
    return "patch_embed.proj.weight" in keys and (at_the_start or "head.fc.weight" in keys)


OWN = Layout("hierarch", [], lambda keys: "stem.proj.weight" in keys)

OFFICIAL = Layout(
    "official",  # microsoft/Swin-Transformer: Swin and Swin-MLP; merges at the end of a layer
    [
        (r"^stem\.", "patch_embed."),
        (r"^position_embedding\.table$", "absolute_pos_embed"),
        (r"^stages\.(\d+)\.downsample", _stage_before),
        (r"^stages\.(\d+)\.blocks", r"layers.\1.blocks"),
        (r"\.mixer\.(weight|bias)$", r".spatial_mlp.\1"),
        (r"\.mixer\.", ".attn."),
        (r"^head\.fc\.", "head."),
    ],
    _is_official,
)

TORCHVISION = Layout(
    "torchvision",  # one flat list: the stem, then blocks and merging in turn
    [
        (r"^stem\.proj\.", "features.0.0."),
        (r"^stem\.norm\.", "features.0.2."),
        (r"^stages\.(\d+)\.downsample", lambda m: f"features.{2 * int(m[1])}"),
        (r"^stages\.(\d+)\.blocks", lambda m: f"features.{2 * int(m[1]) + 1}"),
        (r"\.mixer\.", ".attn."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
        (r"^head\.fc\.", "head."),
    ],
    lambda keys: "features.0.0.weight" in keys,
)

TIMM = Layout(
    "timm",  # as the official layout, but a layer opens with its merging, and the head is ours
    [
        (r"^stem\.", "patch_embed."),
        (r"^stages\.", "layers."),
        (r"\.mixer\.", ".attn."),
    ],
    _is_timm,
)

HUGGINGFACE = Layout(
    "huggingface",  # transformers: Swin's ForImageClassification, Model and Backbone
    [
        (r"^stem\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^stem\.norm\.", "embeddings.norm."),
        (r"^stages\.(\d+)\.downsample", lambda m: f"encoder.{_stage_before(m)}"),
        (r"^stages\.(\d+)\.norm\.", lambda m: f"hidden_states_norms.stage{int(m[1]) + 1}."),
        (r"^stages\.(\d+)\.blocks", r"encoder.layers.\1.blocks"),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.mixer\.proj\.", ".attention.o_proj."),
        (r"\.mixer\.relative_position", ".attention.relative_position_bias.relative_position"),
        (r"\.mixer\.", ".attention."),
        (r"^norm\.", "layernorm."),
        (r"^head\.fc\.", "classifier."),
    ],
    lambda keys: "embeddings.patch_embeddings.projection.weight" in keys,
    spellings=[
        (r"^swin\.", ""),
        # as files were written before version 5
        (r"\.attention\.self\.query\.", ".attention.q_proj."),
        (r"\.attention\.self\.key\.", ".attention.k_proj."),
        (r"\.attention\.self\.value\.", ".attention.v_proj."),
        (r"\.attention\.self\.relative", ".attention.relative_position_bias.relative"),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ],
    splits_qkv=True,
)

LAYOUTS = {layout.name: layout for layout in (OWN, OFFICIAL, TIMM, TORCHVISION, HUGGINGFACE)}
