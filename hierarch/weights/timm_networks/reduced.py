"""PVT v2 and Twins: attention to a reduced map."""

from __future__ import annotations

from typing import Any

from torch import nn

from hierarch.weights.timm_networks.parts import (
    Data,
    Read,
    conv,
    conv_downsample,
    conv_stem,
    depthwise,
    head,
    norm,
)
from hierarch.weights.timm_networks.stages import stage


def pvt_v2(model: Any) -> Read:
    stages: list[Data] = []
    before: Any = None
    for theirs in model.stages:
        one = stage(theirs.blocks, _reduced_attention)
        if before is not None:
            # a stage ends in a norm, which is here the first part of the next one's downsampling
            merged = conv_downsample(theirs.downsample.proj, before)
            one["downsample"] = merged | {"out_norm": norm(theirs.downsample.norm)}
        before = theirs.norm
        stages.append(one)
    return stages, {
        "stem": conv_stem(model.patch_embed.proj, model.patch_embed.norm),
        "head": head(model, model.global_pool, norm=norm(before)),
    }


def twins(model: Any) -> Read:
    stages: list[Data] = []
    for embed, blocks, position in zip(
        model.patch_embeds, model.blocks, model.pos_block, strict=True
    ):
        one = stage(blocks, _twins_attention)
        if stages:
            merged = conv_downsample(embed.proj, nn.Identity())
            one["downsample"] = merged | {"out_norm": norm(embed.norm)}
        kernel = depthwise(position.proj[0])["kernel_size"]
        one["position"] = {"type": "conditional", "kernel_size": kernel}
        stages.append(one)
    first = model.patch_embeds[0]
    patches = {"type": "patch_embed", "patch_size": list(first.patch_size)}
    return stages, {
        "stem": patches | {"in_chans": first.proj.in_channels, "norm": norm(first.norm)},
        "position_after": 1,
        "head": head(model, model.global_pool, norm=norm(model.norm)),
    }


def _twins_attention(block: Any) -> Data:
    if type(block.attn).__name__ == "GlobalSubSampleAttn":
        return _reduced_attention(block)
    return {
        "type": "window_attention",
        "num_heads": block.attn.num_heads,
        "window_size": block.attn.ws,
        "position_bias": "none",
    }


def _reduced_attention(block: Any) -> Data:
    attention = block.attn
    pool, biased = getattr(attention, "pool", None), attention.q.bias is not None
    sizes = {} if pool is None else {"pool_size": pool.output_size}
    if pool is None and attention.sr is not None:
        sizes = {"reduction": conv(attention.sr)["kernel_size"]}
    return {
        "type": "reduced_attention",
        "num_heads": attention.num_heads,
        "qkv_bias": biased,
        **sizes,
    }
