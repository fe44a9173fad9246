"""FocalNet."""

from __future__ import annotations

from typing import Any

from torch import nn

from hierarch.weights.timm_networks.parts import (
    Data,
    Read,
    conv_downsample,
    conv_stem,
    head,
    need,
    norm,
    optional_norm,
    scale,
)
from hierarch.weights.timm_networks.stages import stage


def focalnet(model: Any) -> Read:
    stages: list[Data] = []
    for theirs in model.layers:
        one, block = stage(theirs.blocks, _focal_modulation), theirs.blocks[0]
        one["layer_scale"] = scale(getattr(block.ls1, "gamma", None), 1e-4)
        one["block"] = "post_norm" if block.use_post_norm else "pre_norm"
        if stages:
            merged = conv_downsample(theirs.downsample.proj, nn.Identity())
            one["downsample"] = merged | {"out_norm": norm(theirs.downsample.norm)}
        stages.append(one)
    need(not hasattr(model.head, "pre_logits"), "its head has a hidden layer")
    return stages, {
        "stem": conv_stem(model.stem.proj, model.stem.norm),
        "head": head(model, model.head.global_pool.pool_type, norm=norm(model.norm)),
    }


def _focal_modulation(block: Any) -> Data:
    mixer = block.modulation
    need(mixer.focal_factor == 2, "a kernel of a spec's focal modulation has 2 more than the last")
    need(mixer.f.bias is not None, "its focal modulation has no biases")
    return {
        "type": "focal_modulation",
        "focal_window": mixer.focal_window,
        "focal_level": mixer.focal_level,
        "normalize_modulator": mixer.normalize_modulator,
        "norm": optional_norm(mixer.norm),
    }
