"""Swin and Swin V2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hierarch.spec.grid import Sides
from hierarch.weights.timm_networks.parts import Data, Read, head, head_dim, need, norm, patch_embed
from hierarch.weights.timm_networks.stages import stage


def swin(model: Any) -> Read:
    windows = [layer.blocks[0].window_size for layer in model.layers]
    return _swin_like(model, _window_attention, windows)


def swin_v2(model: Any) -> Read:
    # timm clamps windows to the map when it builds; one without a table can have its own size
    clamped = [layer.blocks[0].window_size for layer in model.layers]
    windows = getattr(model, "_ref_window_sizes", clamped)
    stages, data = _swin_like(model, _cosine_window_attention, windows, norm_last=True)
    return stages, data | {"block": "post_norm"}


def _swin_like(
    model: Any, mixer: Callable[..., Data], windows: Sequence[Sides], **merging: Any
) -> Read:
    stages: list[Data] = []
    for layer, window in zip(model.layers, windows, strict=True):
        one = stage(layer.blocks, partial(mixer, window=window))
        if stages:
            normed = norm(layer.downsample.norm)
            one["downsample"] = {"type": "patch_merging", "norm": normed, **merging}
        stages.append(one)
    classifier = head(model, model.head.global_pool.pool_type, norm=norm(model.norm))
    return stages, {"stem": patch_embed(model.patch_embed), "head": classifier}


def _window_attention(block: Any, window: Sides) -> Data:
    partitions = getattr(block, "always_partition", False)
    need(not partitions, "a spec has no rule for small maps like always_partition")
    rests = [n % w for n, w in zip(block.input_resolution, block.window_size, strict=True)]
    need(
        not (any(rests) and any(block.shift_size)),
        "its shifted windows do not divide its maps, which timm shifts before it pads them; "
        "hierarch.from_checkpoint(model.state_dict()) reads its weights, and pads first",
    )
    return {
        "type": "window_attention",
        "head_dim": head_dim(block.attn),
        "window_size": list(window),
        # timm's own: half of the window that was asked for, in every second block
        "shift_size": [
            min(s, w // 2) for s, w in zip(block.target_shift_size, window, strict=True)
        ],
        "qkv_bias": block.attn.qkv.bias is not None,
        "small_map": "clamp",
    }


def _cosine_window_attention(block: Any, window: Sides) -> Data:
    pretrained = block.attn.pretrained_window_size
    return _window_attention(block, window) | {
        "type": "cosine_window_attention",
        "qkv_bias": block.attn.q_bias is not None,
        "pretrained_window_size": list(pretrained) if all(pretrained) else None,
    }
