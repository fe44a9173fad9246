"""MLP-Mixer and ResMLP."""

from __future__ import annotations

from typing import Any

from hierarch.weights.timm_networks.parts import (
    Data,
    Read,
    head,
    mlp,
    need,
    norm,
    patch_embed,
    scale,
)
from hierarch.weights.timm_networks.stages import stage


def mlp_mixer(model: Any) -> Read:
    def mixer(block: Any) -> Data:
        name, grid = type(block).__name__, list(model.stem.grid_size)
        need(name in ("MixerBlock", "ResBlock"), f"a spec has no block like {name}")
        if name == "ResBlock":
            return {"type": "token_mlp", "grid": grid}
        return {
            "type": "token_mlp",
            "grid": grid,
            "hidden_dim": block.mlp_tokens.fc1.out_features,
            "activation": mlp(block.mlp_tokens)["activation"],
        }

    one = stage(model.blocks, mixer)
    one["layer_scale"] = scale(getattr(model.blocks[0], "ls1", None), 1e-4)
    classifier = head(model, model.global_pool, norm=norm(model.norm))
    return [one], {"stem": patch_embed(model.stem), "head": classifier}
