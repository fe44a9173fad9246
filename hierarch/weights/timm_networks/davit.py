"""DaViT."""

from __future__ import annotations

from typing import Any

from torch import nn

from hierarch.errors import PeerError
from hierarch.weights.timm_networks.parts import (
    Data,
    Read,
    conv,
    conv_stem,
    depthwise,
    head_dim,
    head_with_norm,
    need,
    same,
)
from hierarch.weights.timm_networks.stages import children, downsample, stage


def davit(model: Any) -> Read:
    stages: list[Data] = []
    for theirs in model.stages:
        names = {name for pair in theirs.blocks for name, _ in pair.named_children()}
        need(names == {"0", "1"}, "its blocks are not of two halves, 0 and 1")
        halves = [half for pair in theirs.blocks for half in pair]
        one = stage(halves, _davit_attention)
        positions = (_conv_position(cpe) for half in halves for cpe in (half.cpe1, half.cpe2))
        one["block"] = {"type": "pre_norm", "position": same(positions, "position embeddings")}
        stages.append(one)
        layers = children(theirs.downsample, "conv", "norm")
        downsample(one, *layers, first=len(stages) == 1)
        if layers:
            padded, sides = theirs.downsample.even_k, conv(theirs.downsample.conv)
            plain = not padded or sides["kernel_size"] == sides["stride_size"]
            need(plain, "it pads its maps to multiples of a kernel, and not of its stride")
            one["downsample"]["pad_rest"] = padded
    return stages, {
        "stem": conv_stem(model.stem.conv, model.stem.norm),
        "head": head_with_norm(model),
    }


def _conv_position(module: Any) -> Data:
    need(isinstance(module.act, nn.Identity), "a spec has no activation in a position embedding")
    return {"type": "conditional", "kernel_size": depthwise(module.proj)["kernel_size"]}


def _davit_attention(block: Any) -> Data:
    attention = block.attn
    fields = {"head_dim": head_dim(attention), "qkv_bias": attention.qkv.bias is not None}
    match type(attention).__name__:
        case "WindowAttention":
            window = {"window_size": list(block.window_size), "position_bias": "none"}
            return {"type": "window_attention", **fields, **window}
        case "ChannelAttention":
            return {"type": "channel_attention", **fields}
    raise PeerError(f"a spec has no mixer like {type(attention).__name__}")
