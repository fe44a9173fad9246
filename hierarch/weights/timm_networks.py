"""The specs of timm's networks, read off their modules, since weights tell neither epsilons nor
activations, nor every window. There is a function for each of timm's classes that a spec fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from hierarch.errors import PeerError
from hierarch.spec.grid import Sides
from hierarch.weights.shapes import hoisted, ratio
from hierarch.weights.timm_maxvit import maxvit
from hierarch.weights.timm_parts import (
    Data,
    activation,
    conv,
    conv_downsample,
    conv_stem,
    depthwise,
    drop_path_rate,
    global_attention,
    head,
    head_dim,
    mlp,
    need,
    norm,
    optional_norm,
    parallel_stage,
    patch_embed,
    rope,
    same,
    scale,
    stage,
)

Read = tuple[list[Data], Data]
"""The stages, and the other fields."""


def describe(model: nn.Module) -> Data:
    """The spec of a network of timm, as a mapping. Raises `PeerError` where no spec fits."""
    cls = type(model)
    read = READERS.get(f"{cls.__module__}.{cls.__name__}")
    if read is None:
        known = ", ".join(name.rpartition(".")[2] for name in READERS)
        raise PeerError(f"{cls.__name__} is none of {known}")
    stages, data = read(model)
    rates = {n: m.p for n, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p}
    data["head"]["drop_rate"] = rates.pop("head.drop", rates.pop("head_drop", 0.0))
    need(not rates, f"a spec has no rate for the dropout of {', '.join(rates)}")
    normed = stages[-1]["norm"]
    if data["head"]["norm"] == (normed[0] if isinstance(normed, list) else normed):
        del data["head"]["norm"]
    data["drop_path_rate"] = drop_path_rate([r for s in stages for r in s.pop("drop_paths")])
    config: Data = getattr(model, "pretrained_cfg", {})
    embed = getattr(model, "patch_embed", getattr(model, "stem", None))
    size = getattr(embed, "img_size", None) or config.get("input_size", (3, 224, 224))[-2:]
    named = {"name": config.get("architecture", cls.__name__), "input_size": list(size)}
    return named | data | hoisted(stages)


def _swin(model: Any) -> Read:
    windows = [layer.blocks[0].window_size for layer in model.layers]
    return _swin_like(model, _window_attention, windows)


def _swin_v2(model: Any) -> Read:
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


def _metaformer(model: Any) -> Read:
    stages = []
    for theirs in model.stages:
        one, block = stage(theirs.blocks, _token_mixer), theirs.blocks[0]
        one["layer_scale"] = scale(getattr(block.layer_scale1, "scale", None), 1e-5)
        residual = scale(getattr(block.res_scale1, "scale", None), 1.0)
        one["block"] = {"type": "pre_norm", "residual_scale": residual}
        stages.append(one)
        _downsample(one, *_children(theirs.downsample, "conv", "norm"), first=len(stages) == 1)
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


def _convnext(model: Any) -> Read:
    stages = []
    for theirs in model.stages:
        one = stage(theirs.blocks, _depthwise_conv)
        one["layer_scale"] = scale(theirs.blocks[0].gamma, 1e-6)
        stages.append(one)
        _downsample(one, *_children(theirs.downsample, "1", "0"), first=len(stages) == 1)
    need(len(model.stem) == 2, "its stem has several convolutions")
    return stages, {
        "stem": conv_stem(*model.stem),
        "block": "single_residual",
        "head": _head_with_norm(model),
    }


def _inception_next(model: Any) -> Read:
    stages: list[Data] = []
    for theirs in model.stages:
        one = stage(theirs.blocks, _inception_conv)
        one["layer_scale"] = scale(theirs.blocks[0].gamma, 1e-6)
        stages.append(one)
        _downsample(one, *_children(theirs.downsample, "1", "0"), first=len(stages) == 1)
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


def _head_with_norm(model: Any) -> Data:
    """A head whose norm stands after the mean or, where timm calls it `norm_pre`, before it."""
    if isinstance(model.norm_pre, nn.Identity):
        need(isinstance(model.head.pre_logits, nn.Identity), "its head has a hidden layer")
        fields: Data = {"pool_first": True, "norm": norm(model.head.norm)}
    else:
        fields = {"norm": norm(model.norm_pre)}
    return head(model, model.head.global_pool.pool_type, **fields)


def _depthwise_conv(block: Any) -> Data:
    need(isinstance(block.shortcut, nn.Identity), "a spec has no layer on a skip connection")
    return {"type": "depthwise_conv", **depthwise(block.conv_dw)}


def _pvt_v2(model: Any) -> Read:
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


def _twins(model: Any) -> Read:
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


def _focalnet(model: Any) -> Read:
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


def _davit(model: Any) -> Read:
    stages: list[Data] = []
    for theirs in model.stages:
        names = {name for pair in theirs.blocks for name, _ in pair.named_children()}
        need(names == {"0", "1"}, "its blocks are not of two halves, 0 and 1")
        halves = [half for pair in theirs.blocks for half in pair]
        one = stage(halves, _davit_attention)
        positions = (_conv_position(cpe) for half in halves for cpe in (half.cpe1, half.cpe2))
        one["block"] = {"type": "pre_norm", "position": same(positions, "position embeddings")}
        stages.append(one)
        layers = _children(theirs.downsample, "conv", "norm")
        _downsample(one, *layers, first=len(stages) == 1)
        if layers:
            padded, sides = theirs.downsample.even_k, conv(theirs.downsample.conv)
            plain = not padded or sides["kernel_size"] == sides["stride_size"]
            need(plain, "it pads its maps to multiples of a kernel, and not of its stride")
            one["downsample"]["pad_rest"] = padded
    return stages, {
        "stem": conv_stem(model.stem.conv, model.stem.norm),
        "head": _head_with_norm(model),
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


def _children(module: nn.Module, *names: str) -> list[nn.Module]:
    """These submodules; none for `nn.Identity`."""
    plain = isinstance(module, nn.Identity)
    return [] if plain else [module.get_submodule(name) for name in names]


def _downsample(one: Data, *layers: nn.Module, first: bool) -> None:
    """Sets the downsampling of a stage, which every stage but the first has to have."""
    need(layers or first, "a spec has no stage, but the first, without a downsampling")
    if layers:
        one["downsample"] = conv_downsample(*layers)


def _vision_transformer(model: Any) -> Read:
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


def _eva(model: Any) -> Read:
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


def _mlp_mixer(model: Any) -> Read:
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


READERS: dict[str, Callable[[Any], Read]] = {
    "timm.models.swin_transformer.SwinTransformer": _swin,
    "timm.models.swin_transformer_v2.SwinTransformerV2": _swin_v2,
    "timm.models.metaformer.MetaFormer": _metaformer,
    "timm.models.convnext.ConvNeXt": _convnext,
    "timm.models.inception_next.MetaNeXt": _inception_next,
    "timm.models.pvt_v2.PyramidVisionTransformerV2": _pvt_v2,
    "timm.models.twins.Twins": _twins,
    "timm.models.focalnet.FocalNet": _focalnet,
    "timm.models.davit.DaVit": _davit,
    "timm.models.maxxvit.MaxxVit": maxvit,
    "timm.models.vision_transformer.VisionTransformer": _vision_transformer,
    "timm.models.deit.VisionTransformerDistilled": _vision_transformer,
    "timm.models.eva.Eva": _eva,
    "timm.models.mlp_mixer.MlpMixer": _mlp_mixer,
}
