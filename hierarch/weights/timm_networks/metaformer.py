"""MetaFormer: PoolFormer, ConvFormer, CAFormer and others."""

from __future__ import annotations

from typing import Any

from torch import nn

from hierarch.weights.shapes import ratio
from hierarch.weights.timm_networks.parts import (
    Data,
    Read,
    activation,
    conv_stem,
    depthwise,
    global_attention,
    head,
    need,
    norm,
    scale,
)
from hierarch.weights.timm_networks.stages import children, downsample, stage


def metaformer(model: Any) -> Read:
    stages = []
    for theirs in model.stages:
        one, block = stage(theirs.blocks, _token_mixer), theirs.blocks[0]
        one["layer_scale"] = scale(getattr(block.layer_scale1, "scale", None), 1e-5)
        residual = scale(getattr(block.res_scale1, "scale", None), 1.0)
        one["block"] = {"type": "pre_norm", "residual_scale": residual}
        stages.append(one)
        downsample(one, *children(theirs.downsample, "conv", "norm"), first=len(stages) == 1)
    fields: Data = {"pool_first": True, "norm": norm(model.head.norm)}
    classifier = model.head.fc
    if type(classifier).__name__ == "MlpHead":
        need(norm(classifier.norm) == fields["norm"], "the two norms of its head differ")
        fields["hidden_ratio"] = ratio(*classifier.fc1.weight.shape)
        fields["activation"] = activation(classifier.act)
    return stages, {
        "stem": conv_stem(model.stem.conv, model.stem.norm),
        "head": head(model, model.head.global_pool.pool_type, **fields),
    }


def _token_mixer(block: Any) -> Data | str:
    mixer = block.token_mixer
    match type(mixer).__name__:
        case "Identity":
            return "identity"
        case "Pooling":
            return {"type": "pooling", "kernel_size": mixer.pool.kernel_size}
        case "SepConv":
            need(isinstance(mixer.act2, nn.Identity), "a spec has no second activation in a mixer")
            return {
                "type": "separable_conv",
                "expand_ratio": ratio(*mixer.pwconv1.weight.shape[:2]),
                "activation": activation(mixer.act1),
                **depthwise(mixer.dwconv),
            }
    return global_attention(mixer)
