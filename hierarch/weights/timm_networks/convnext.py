"""ConvNeXt, ConvNeXt V2 and InceptionNeXt."""

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
    head,
    head_with_norm,
    need,
    norm,
    scale,
)
from hierarch.weights.timm_networks.stages import children, downsample, stage


def convnext(model: Any) -> Read:
    stages = []
    for theirs in model.stages:
        one = stage(theirs.blocks, _depthwise_conv)
        one["layer_scale"] = scale(theirs.blocks[0].gamma, 1e-6)
        stages.append(one)
        downsample(one, *children(theirs.downsample, "1", "0"), first=len(stages) == 1)
    need(len(model.stem) == 2, "its stem has several convolutions")
    return stages, {
        "stem": conv_stem(*model.stem),
        "block": "single_residual",
        "head": head_with_norm(model),
    }


def inception_next(model: Any) -> Read:
    stages: list[Data] = []
    for theirs in model.stages:
        one = stage(theirs.blocks, _inception_conv)
        one["layer_scale"] = scale(theirs.blocks[0].gamma, 1e-6)
        stages.append(one)
        downsample(one, *children(theirs.downsample, "1", "0"), first=len(stages) == 1)
    theirs = model.head
    need(model.num_classes, "its head has a hidden layer and no classes")
    need(not theirs.drop.p, "a spec has no dropout after the hidden layer of a head")
    return stages, {
        "stem": conv_stem(*model.stem),
        "block": "single_residual",
        "head": head(
            model,
            theirs.global_pool.pool_type,
            pool_first=True,
            norm="none",
            hidden_ratio=ratio(*theirs.fc1.weight.shape),
            hidden_norm=norm(theirs.norm),
            activation=activation(theirs.act),
        ),
    }


def _inception_conv(block: Any) -> Data:
    mixer = block.token_mixer
    name = type(mixer).__name__
    need(name == "InceptionDWConv2d", f"a spec has no mixer like {name}")
    rows, columns = mixer.dwconv_w, mixer.dwconv_h
    for layer in (mixer.dwconv_hw, rows, columns):
        need(layer.dilation == (1, 1), "a spec has no dilation")
    need(rows.kernel_size == columns.kernel_size[::-1], "the bands of its mixer differ")
    return {
        "type": "inception_conv",
        "square_kernel_size": mixer.dwconv_hw.kernel_size[0],
        "band_kernel_size": rows.kernel_size[1],
        "branch_ratio": ratio(rows.in_channels, sum(mixer.split_indexes)),
    }


def _depthwise_conv(block: Any) -> Data:
    need(isinstance(block.shortcut, nn.Identity), "a spec has no layer on a skip connection")
    return {"type": "depthwise_conv", **depthwise(block.conv_dw)}
