"""The parts of a spec, read off timm's modules. What a spec has no word for is a `PeerError`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import Tensor, nn

from hierarch.errors import PeerError
from hierarch.weights.shapes import ratio

Data = dict[str, Any]
Read = tuple[list[Data], Data]
"""The stages, and the other fields."""
T = TypeVar("T")

NORMS = {
    **dict.fromkeys(("LayerNorm", "LayerNorm2d"), "layer_norm"),
    **dict.fromkeys(("LayerNormNoBias", "LayerNorm2dNoBias"), "layer_norm"),
    **dict.fromkeys(("GroupNorm", "GroupNorm1", "GroupNorm1NoBias"), "group_norm"),
    "BatchNorm2d": "batch_norm",
    "Affine": "affine",
}
NONE = nn.Identity()
_BY_TANH: Data = {"type": "gelu", "approximate": "tanh"}
ACTIVATIONS: dict[str, Data | str] = {
    "GELU": "gelu",
    "GELUTanh": _BY_TANH,
    "Tanh": "tanh",
    "ReLU": "relu",
    "SiLU": "silu",
    "SquaredReLU": "squared_relu",
    "StarReLU": "star_relu",
}


def need(condition: object, reason: str) -> None:
    """Raise `PeerError`, with the reason that no spec fits, unless the condition holds."""
    if not condition:
        raise PeerError(reason)


def same(values: Iterable[T], what: str) -> T:
    """The one value that all of these are. Raises `PeerError` if they differ."""
    first, *others = values
    need(all(other == first for other in others), f"{what} differ inside a stage")
    return first


def norm(module: Any) -> Data | str:
    """A normalization."""
    name = type(module).__name__
    need(name in NORMS, f"a spec has no norm like {name}")
    if name == "Affine":
        return "affine"
    need(module.weight is not None, f"its {name} has no scale")
    need(getattr(module, "num_groups", 1) == 1, f"its {name} has several groups")
    if name == "BatchNorm2d":
        need(module.momentum and module.running_mean is not None, "its batch norm does not forget")
        return {"type": "batch_norm", "eps": module.eps, "momentum": module.momentum}
    return {"type": NORMS[name], "eps": module.eps, "bias": module.bias is not None}


def optional_norm(module: nn.Module) -> Data | str | None:
    """A normalization, or None for `nn.Identity`."""
    return None if isinstance(module, nn.Identity) else norm(module)


def norm_act(module: Any) -> tuple[Data, Data | str | None]:
    """A batch norm that has an activation inside, and this activation; None for none."""
    name = type(module).__name__
    need(name == "BatchNormAct2d", f"a spec has no norm like {name} there")
    need(isinstance(module.drop, nn.Identity), "a spec has no dropout after a norm")
    act = None if isinstance(module.act, nn.Identity) else activation(module.act)
    return {"type": "batch_norm", "eps": module.eps, "momentum": module.momentum}, act


def activation(module: nn.Module) -> Data | str:
    """An activation."""
    name = type(module).__name__
    need(name in ACTIVATIONS, f"a spec has no activation like {module}")
    by_tanh = getattr(module, "approximate", "none") == "tanh"
    return _BY_TANH if by_tanh else ACTIVATIONS[name]


def mlp(module: Any) -> Data:
    """An MLP, as fields of a stage: two linear layers, or two convolutions of 1x1."""
    name = type(module).__name__
    need(name in CHANNEL_MIXERS, f"a spec has no MLP like {name}")
    need(isinstance(getattr(module, "norm", NONE), nn.Identity), "a spec has no norm inside an MLP")
    first = first_layer(module)
    hidden, dim = first.weight.shape[:2]
    return {
        "channel_mixer": CHANNEL_MIXERS[name](module),
        "mlp_ratio": ratio(hidden, dim),
        "mlp_bias": same((fc.bias is not None for fc in (first, module.fc2)), "its biases"),
        "activation": activation(module.act),
    }


def first_layer(module: Any) -> Any:
    """The layer of an MLP, or the gate of a gated linear unit, that widens a token."""
    return module.fc1_g if hasattr(module, "fc1_g") else module.fc1


def _conv_mlp(module: Any) -> Data:
    inner = module.relu
    fields = depthwise(module.dwconv)
    biases = {layer.bias is not None for layer in (module.fc1, module.dwconv)}
    need(len(biases) == 1, "the layers of its MLP have biases and none")
    return {
        "type": "conv_mlp",
        "kernel_size": fields["kernel_size"],
        "inner_activation": None if isinstance(inner, nn.Identity) else activation(inner),
    }


CHANNEL_MIXERS: dict[str, Callable[[Any], Data | str]] = {
    **dict.fromkeys(("Mlp", "ConvMlp"), lambda module: "mlp"),
    "GlobalResponseNormMlp": lambda module: {"type": "grn_mlp", "eps": module.grn.eps},
    "MlpWithDepthwiseConv": _conv_mlp,
    "SwiGLU": lambda module: "glu",
}
"""timm's classes of MLPs, and what reads the part off one."""


def global_attention(module: Any) -> Data:
    """Attention of all tokens to all tokens."""
    name = type(module).__name__
    need(name in ("Attention", "EvaAttention"), f"a spec has no mixer like {name}")
    need(module.qkv, "its queries, keys and values are not of one layer")
    for inner in ("q_norm", "k_norm", "norm"):
        plain = isinstance(getattr(module, inner, nn.Identity()), nn.Identity)
        need(plain, f"a spec has no {inner} inside attention")
    need(getattr(module, "gate", None) is None, "a spec has no gate inside attention")
    keyless = getattr(module, "q_bias", None) is not None
    fields = {"key_bias": False} if keyless else {}
    return fields | {
        "type": "global_attention",
        "head_dim": head_dim(module),
        "qkv_bias": keyless or module.qkv.bias is not None,
        "proj_bias": module.proj.bias is not None,
    }


def rope(module: Any) -> Data:
    """A rotary position embedding."""
    name = type(module).__name__
    need(name == "RotaryEmbeddingDinoV3", f"a spec has no rotary embedding like {name}")
    like_ours = (
        module.rotate_half
        and module.normalize_coords == "separate"
        and (module.grid_indexing, module.grid_offset) == ("ij", 0)
        and module.min_period is None
    )
    need(like_ours and not module.aug_active, "its rotary embedding is not as DINOv3's")
    return {"temperature": module.temperature}


def head_dim(attention: Any) -> int:
    """Channels per head, where all heads together have those of the block."""
    inner, dim = attention.qkv.weight.shape
    need(inner == 3 * dim, f"its heads have {inner // 3} channels together, its blocks {dim}")
    return int(dim // attention.num_heads)


def conv(module: Any) -> Data:
    """A convolution's fields."""
    plain = type(module) is nn.Conv2d and not isinstance(module.padding, str)
    need(plain and module.padding_mode == "zeros", f"a spec has no convolution like {module}")
    need(module.dilation == (1, 1), "a spec has no dilation")
    sides = {
        "kernel_size": module.kernel_size,
        "stride_size": module.stride,
        "padding": module.padding,
    }
    need(all(h == w for h, w in sides.values()), "a spec has only square convolutions")
    return {name: side for name, (side, _) in sides.items()} | {"bias": module.bias is not None}


def conv_downsample(module: Any, normed: nn.Module) -> Data:
    """A downsampling by a convolution, after a norm."""
    need(module.groups == 1, f"a spec has no convolution like {module}")
    return {"type": "conv_downsample", **conv(module), "norm": optional_norm(normed)}


def conv_stem(module: Any, normed: nn.Module) -> Data:
    """A stem of a convolution, before a norm."""
    stem = {"type": "conv_stem", "in_chans": module.in_channels}
    return conv_downsample(module, normed) | stem


def depthwise(module: Any) -> Data:
    """A convolution of each channel by itself, on a map whose size it keeps."""
    fields = conv(module)
    alone = module.groups == module.in_channels == module.out_channels
    kept = (fields.pop("stride_size"), fields.pop("padding")) == (1, fields["kernel_size"] // 2)
    need(alone and kept, f"a spec has no mixer like {module}")
    return fields


def patch_embed(module: Any) -> Data:
    """A stem that cuts images into patches."""
    name = type(module).__name__
    need(name == "PatchEmbed", f"a spec has no stem like {name}")
    need(module.proj.bias is not None, "its patch embedding has no bias")
    return {
        "type": "patch_embed",
        "patch_size": list(module.patch_size),
        "in_chans": module.proj.in_channels,
        "norm": optional_norm(module.norm),
    }


def scale(factors: Tensor | None, published: float) -> float | None:
    """The initial value of factors per channel: `published` if they have been trained."""
    if factors is None:
        return None
    first = factors.detach().flatten()[0]
    value = float(f"{float(first):.6g}")  # 1e-6 in float32 is 9.99999997e-7
    return value if bool((factors == first).all()) and 0 < value <= 10 else published


def head(model: Any, pooling: str, **fields: Any) -> Data:
    """A classifier of the mean over tokens; `fields` are its others."""
    need(pooling == "avg", f"a head takes the mean over tokens, and this one {pooling!r}")
    return {"num_classes": model.num_classes, **fields}


def head_with_norm(model: Any) -> Data:
    """A head whose norm stands after the mean or, where timm calls it `norm_pre`, before it."""
    if isinstance(model.norm_pre, nn.Identity):
        need(isinstance(model.head.pre_logits, nn.Identity), "its head has a hidden layer")
        fields: Data = {"pool_first": True, "norm": norm(model.head.norm)}
    else:
        fields = {"norm": norm(model.norm_pre)}
    return head(model, model.head.global_pool.pool_type, **fields)
