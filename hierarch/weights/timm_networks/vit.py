"""ViT, DeiT, DINOv2, parallel ViTs, and DINOv3 (Eva)."""

from __future__ import annotations

from typing import Any

from torch import nn

from hierarch.weights.timm_networks.parts import (
    Data,
    Read,
    global_attention,
    head,
    need,
    norm,
    patch_embed,
    rope,
    scale,
)
from hierarch.weights.timm_networks.stages import parallel_stage, stage


def vision_transformer(model: Any) -> Read:
    for name in ("norm_pre", "patch_drop"):
        need(isinstance(getattr(model, name), nn.Identity), f"a spec has no {name}")
    kinds = {type(block).__name__ for block in model.blocks}
    if kinds == {"ParallelScalingBlock"}:
        one = parallel_stage(model.blocks)
    else:
        need(kinds == {"Block"}, f"a spec has no block like {', '.join(kinds)}")
        one = stage(model.blocks, lambda block: global_attention(block.attn))
        one["layer_scale"] = scale(getattr(model.blocks[0].ls1, "gamma", None), 1e-5)
        gated = hasattr(model.blocks[0].mlp, "fc1_g")
        need(not gated, "the weights of a ViT with SwiGLU are not recognized")
    need(model.pos_embed is not None, "the weights of a ViT without positions are not recognized")
    position = {"type": "absolute", "grid": list(model.patch_embed.grid_size)}
    data = {"position_embedding": position} | _with_extra_tokens(model)
    return [one], data


def eva(model: Any) -> Read:
    need(isinstance(model.norm_pre, nn.Identity), "a spec has no norm_pre")
    for name in ("pos_embed", "patch_drop", "attn_pool"):
        need(getattr(model, name) is None, f"a spec of DINOv3 has no {name}")
    kinds = {type(block).__name__ for block in model.blocks}
    need(kinds == {"EvaBlock"}, f"a spec has no block like {', '.join(kinds)}")
    first = model.blocks[0]
    need((first.gamma_1 is None) == (first.gamma_2 is None), "a half of its blocks has no scale")
    own = {"rope": rope(model.rope)}
    one = stage(model.blocks, lambda block: global_attention(block.attn) | own)
    one["layer_scale"] = scale(first.gamma_1, 1e-5)
    return [one], _with_extra_tokens(model)


def _with_extra_tokens(model: Any) -> Data:
    """Stem, head, and the tokens outside of the grid."""
    after = isinstance(model.norm, nn.Identity)
    token = model.global_pool == "token"
    fields = {
        "pool": "class_token" if token else "mean",
        "pool_first": after,
        "norm": norm(model.fc_norm if after else model.norm),
    }
    registers = model.reg_token
    extra = {
        "class_token": model.cls_token is not None,
        "distillation_token": getattr(model, "dist_token", None) is not None,
        "registers": 0 if registers is None else registers.shape[1],
        "positions": model.pos_embed is not None and not model.no_embed_class,
    }
    return {
        "extra_tokens": extra if model.num_prefix_tokens else None,
        "stem": patch_embed(model.patch_embed),
        "head": head(model, "avg" if token else model.global_pool, **fields),
    }
