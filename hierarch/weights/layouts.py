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
    """One library's names. `rules` rewrite our name step by step into its name."""

    name: str
    rules: Sequence[Rule]
    recognizes: Callable[[Collection[str]], bool]

    def theirs(self, key: str) -> str:
        """What our weight `key` is called in this layout."""
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key


def _stage_before(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) - 1}.downsample"


def _is_official(keys: Collection[str]) -> bool:
    merges_at_the_end = "layers.0.downsample.reduction.weight" in keys
    one_stage = not any(key.startswith("layers.1.") for key in keys)
    return "patch_embed.proj.weight" in keys and (merges_at_the_end or one_stage)


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

LAYOUTS = {layout.name: layout for layout in (OWN, OFFICIAL, TORCHVISION)}
