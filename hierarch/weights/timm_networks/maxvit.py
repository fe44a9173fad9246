"""The spec of MaxViT in timm, with the parts that its networks from TensorFlow have."""

from __future__ import annotations

from typing import Any

from torch import nn

from hierarch.weights.shapes import ratio
from hierarch.weights.timm_networks.parts import (
    Data,
    Read,
    activation,
    head,
    head_dim,
    need,
    norm,
    norm_act,
    same,
)
from hierarch.weights.timm_networks.stages import drop_path, stage

ATTENTIONS = {"attn_block": "window_attention", "attn_grid": "grid_attention"}


def maxvit(model: Any) -> Read:
    stages = [_stage([*theirs.blocks]) for theirs in model.stages]
    need(hasattr(model.head, "pre_logits"), "its last norm is not the head's")
    hidden = model.head.pre_logits
    need(not isinstance(hidden, nn.Identity), "its head has no hidden layer")
    need(model.num_classes, "its head has a hidden layer and no classes")
    fields: Data = {
        "pool_first": True,
        "norm": norm(model.head.norm),
        "hidden_ratio": ratio(*hidden.fc.weight.shape),
        "hidden_norm": "none",
        "activation": activation(hidden.act),
    }
    width = model.stem.out_chs
    return stages, {
        "input_size": list(model.img_size),
        "stem": _stem(model.stem),
        "stem_dim": None if width == stages[0]["dim"] else width,
        "head": head(model, model.head.global_pool.pool_type, **fields),
    }


def _stage(blocks: list[Any]) -> Data:
    kinds = {type(block).__name__ for block in blocks}
    need(kinds == {"MaxxVitBlock"}, f"a spec has no block like {', '.join(sorted(kinds))}")
    kinds = {type(block.conv).__name__ for block in blocks}
    need(kinds == {"MbConvBlock"}, f"a spec has no mixer like {', '.join(sorted(kinds))}")
    parts = [getattr(block, name) for block in blocks for name in ATTENTIONS]
    need(None not in parts, "its blocks have no attention in windows")
    one = stage(parts, _attention)
    opening, *further = [block.conv for block in blocks]
    # ours in their order: the first MBConv is the downsampling
    ours = [part for block in blocks for part in (block.conv, block.attn_block, block.attn_grid)]
    mbconv = same(map(_inverted_residual, (opening, *further)), "MBConvs")
    need(_halves(opening), "the first block of a stage does not halve its map by a mean")
    need(not any(map(_halves, further)), "a block that is not a stage's first halves its map")
    one["depth"] = len(ours) - 1
    one["downsample"] = mbconv
    one["drop_paths"] = [drop_path(part) for part in ours[1:]]
    if further:
        normed, mlp = one["norm"], one["channel_mixer"]
        one["mixer"] = [*one["mixer"], mbconv]
        one["norm"] = [normed, normed, mbconv["norm"]]
        one["channel_mixer"] = [mlp, mlp, "none"]
    return one


def _attention(part: Any) -> Data:
    attention = part.attn
    kind = type(attention.rel_pos).__name__
    need(kind == "RelPosBiasTf", f"a spec has no position bias like {kind}")
    need(not attention.head_first, "the heads of its queries, keys and values are interleaved")
    plain = all(isinstance(ls, nn.Identity) for ls in (part.ls1, part.ls2))
    need(plain, "the norm of its blocks is not the last part before a factor per channel")
    name = "attn_block" if part.partition_block else "attn_grid"
    return {
        "type": ATTENTIONS[name],
        "head_dim": head_dim(attention),
        "window_size": list(part.partition_size),
        "qkv_bias": attention.qkv.bias is not None,
    }


def _inverted_residual(block: Any) -> Data:
    expand, conv, reduce = block.conv1_1x1, block.conv2_kxk, block.conv3_1x1
    normed, early = norm_act(block.pre_norm)
    inner = [norm_act(module) for module in (block.norm1, block.norm2)]
    need(early is None, "a spec has no activation before an MBConv")
    need({str(one) for one, _ in inner} == {str(normed)}, "the norms of an MBConv differ")
    need(block.se_early is None, "it excites before the second norm of an MBConv")
    need(isinstance(block.down, nn.Identity), "it pools in place of a stride")
    need(expand.stride == (1, 1) and expand.bias is None, "its first layer is not a plain one")
    alone = conv.groups == conv.in_channels == conv.out_channels and conv.dilation == (1, 1)
    size, _ = conv.kernel_size
    need(alone and conv.kernel_size == (size, size) and conv.bias is None, f"no mixer like {conv}")
    need(conv.stride == (1, 1) or _is_same(conv), "its padding is not TensorFlow's")
    hidden, dim = reduce.in_channels, reduce.out_channels
    return {
        "type": "mbconv",
        "kernel_size": size,
        "expand_ratio": ratio(hidden, dim),
        **_squeeze(block.se, dim),
        "norm": normed,
        "activation": same((act for _, act in inner), "activations"),
        "bias": reduce.bias is not None,
    }


def _squeeze(module: Any, dim: int) -> Data:
    if module is None or isinstance(module, nn.Identity):
        return {"squeeze_ratio": None}
    name = type(module).__name__
    plain = name == "SEModule" and isinstance(module.bn, nn.Identity) and not module.add_maxpool
    need(plain and type(module.gate).__name__ == "Sigmoid", f"a spec has no attention like {name}")
    squeezed = module.fc1.out_channels
    return {
        "squeeze_ratio": ratio(squeezed, dim),
        "squeeze_activation": activation(module.act),
    }


def _halves(block: Any) -> bool:
    """Whether an MBConv takes the mean of 2x2 tokens on its skip connection."""
    if isinstance(block.shortcut, nn.Identity):
        return False
    pool = block.shortcut.pool
    name = type(pool).__name__
    need(
        name == "AvgPool2dSame" and pool.kernel_size == (2, 2), f"a spec has no pooling like {name}"
    )
    return bool(block.conv2_kxk.stride == (2, 2))


def _is_same(conv: nn.Module) -> bool:
    return type(conv).__name__ == "Conv2dSame"


def _stem(stem: Any) -> Data:
    normed, act = norm_act(stem.norm1)
    first, last = stem.conv1, stem.conv2
    need(_is_same(first) and last.stride == (1, 1), "the padding of its stem is not TensorFlow's")
    return {
        "type": "conv_stack",
        "strides": [first.stride[0], 1],
        "kernel_size": same((first.kernel_size[0], last.kernel_size[0]), "kernels"),
        "padding": "same",
        "hidden_ratio": ratio(first.out_channels, last.out_channels),
        "in_chans": first.in_channels,
        "bias": same((conv.bias is not None for conv in (first, last)), "biases"),
        "inner_norm": normed,
        "activation": act,
    }
