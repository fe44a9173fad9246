"""OpenMMLab's configs of Swin: mmdetection, mmsegmentation, mmpretrain, and the forks by Swin's
authors. The network is `model.backbone`; the constructors' defaults are each library's own."""

from __future__ import annotations

from typing import Any

from hierarch.importing.microsoft import check_heads
from hierarch.importing.nodes import Node, Section
from hierarch.importing.swin import Swin

_FORK = {"embed_dim": "embed_dims", "in_chans": "in_channels", "ape": "use_abs_pos_embed"}
"""Names in the forks by Swin's authors, Swin-Transformer-Object-Detection for one."""
_TRAINING = (
    *("type", "_scope_", "init_cfg", "pretrained", "pretrain_style", "convert_weights"),
    *("with_cp", "use_checkpoint", "frozen_stages", "norm_eval", "interpolate_mode"),
)
"""Arguments that do not change the network, but for how an absolute position is resized."""
_DETECTION = (
    *("pretrain_img_size", "in_channels", "embed_dims", "patch_size", "window_size", "mlp_ratio"),
    *("depths", "num_heads", "strides", "out_indices", "qkv_bias", "qk_scale", "patch_norm"),
    *("drop_rate", "attn_drop_rate", "drop_path_rate", "use_abs_pos_embed", "act_cfg", "norm_cfg"),
)
_PRETRAIN = (
    *("arch", "img_size", "patch_size", "in_channels", "window_size", "drop_rate"),
    *("drop_path_rate", "out_indices", "out_after_downsample", "use_abs_pos_embed"),
    *("pad_small_map", "norm_cfg", "stage_cfgs", "patch_cfg", "pretrained_window_sizes"),
)
ARGUMENTS = {*_DETECTION, *_PRETRAIN}
"""Arguments that describe the network."""
_NOTE = "the constructor has no other"
_ARCHS = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
"""mmpretrain's `arch`: channels, blocks and heads of each stage."""


def swin(root: Node, name: str) -> tuple[Swin, list[str]]:
    """The network of a config, and what is to be said of it. Raises `SpecError`."""
    config = Section(root)
    model = config.section("model")
    assert model is not None
    backbone = model.section("backbone")
    if backbone is None:
        held = ", ".join(sorted(model.keys)[:12])
        raise model.node.place.error(
            f"has no backbone; it has {held}; write that model's own config", "model"
        )
    scope, _, kind = backbone.text("type", "").rpartition(".")
    if kind not in ("SwinTransformer", "SwinTransformerV2", "SimMIMSwinTransformer"):
        wanted = "SwinTransformer, SwinTransformerV2 or SimMIMSwinTransformer"
        raise backbone.error("type", f"should be {wanted}, got {kind!r}")
    is_pretrain = _is_pretrain(backbone, model, scope, kind)
    read = _pretrain if is_pretrain else _detection
    network = read(backbone, name, kind)
    check_heads(network, backbone, "arch" if is_pretrain else "num_heads")
    note = _classify(network, model, kind) if is_pretrain else ""
    return network, [note] * bool(note)


def _is_pretrain(backbone: Section, model: Section, scope: str, kind: str) -> bool:
    """Whether a backbone is mmpretrain's: mmdetection has another one of the same name."""
    if scope in ("mmpretrain", "mmcls", "mmdet", "mmseg"):
        return scope in ("mmpretrain", "mmcls")
    keys = {*backbone.keys}
    if kind != "SwinTransformer" or keys & ({*_PRETRAIN} - {*_DETECTION}):
        return True
    if keys & ({*_DETECTION, *_FORK} - {*_PRETRAIN}):
        return False
    return model.text("type", "") == "ImageClassifier"


def _detection(backbone: Section, name: str, kind: str) -> Swin:
    """mmdetection's and mmsegmentation's: maps are padded to windows, and always shifted."""
    fork = not {*_FORK, "use_checkpoint"}.isdisjoint(backbone.keys)
    for old, new in _FORK.items():
        if old in backbone and new not in backbone:
            backbone.keys[new] = backbone.keys.pop(old)
    backbone.only(_DETECTION, _NOTE, ignored=_TRAINING)
    depths = backbone.integers("depths", (2, 2, 6, 2))
    patch = backbone.integer("patch_size", 4)
    strides = [patch] + [2] * (len(depths) - 1)
    _refuse(backbone, "strides", strides, f"should be {strides}: a spec merges 2x2 tokens")
    _refuse(backbone, "qk_scale", None, "should be None: a spec has no other scale")
    _refuse(backbone, "attn_drop_rate", 0, "should be 0: a spec has no dropout of attention")
    patch_norm = backbone.flag("patch_norm", True)
    if not patch_norm and not fork:
        raise backbone.error("patch_norm", "should be True: a spec's patch merging has a norm")
    return Swin(
        name=name,
        mixer="window_attention",
        dim=backbone.integer("embed_dims", 96),
        depths=depths,
        heads=backbone.integers("num_heads", (3, 6, 12, 24), len(depths)),
        windows=[backbone.integer("window_size", 7)] * len(depths),
        input_size=_pair(backbone, "pretrain_img_size"),
        patch_size=patch,
        in_chans=backbone.integer("in_channels", 3),
        small_map="pad_shift",
        qkv_bias=backbone.flag("qkv_bias", True),
        mlp_ratio=backbone.number("mlp_ratio", 4),
        activation=_activation(backbone),
        patch_norm=patch_norm,
        absolute_position=backbone.flag("use_abs_pos_embed", False),
        eps=_eps(backbone),
        drop_rate=backbone.number("drop_rate", 0),
        drop_path_rate=backbone.number("drop_path_rate", 0.2 if fork else 0.1),
        out_indices=_outputs(backbone, range(len(depths)), len(depths)),
    )


def _pretrain(backbone: Section, name: str, kind: str) -> Swin:
    """mmpretrain's, V1 and V2: its dropout is after the stem alone."""
    second = kind == "SwinTransformerV2"
    backbone.only(_PRETRAIN, _NOTE, ignored=_TRAINING)
    dim, depths, heads = _arch(backbone)
    windows = _windows(backbone, 8 if second else 7, len(depths))
    for key, said in (("patch_cfg", {}), ("out_after_downsample", False)):
        _refuse(backbone, key, said, "is more than a spec can say")
    padded = backbone.flag("pad_small_map", False)
    drop_rate = backbone.number("drop_rate", 0)
    same = [0] * len(depths)
    if _eps(backbone) != 1e-5:
        message = "should be 1e-5, as of the other norms, or norm_cfg=None for no norm of outputs"
        raise backbone.error("norm_cfg", message)
    return Swin(
        name=name,
        mixer="cosine_window_attention" if second else "window_attention",
        dim=dim,
        depths=depths,
        heads=heads,
        windows=windows,
        input_size=_pair(backbone, "img_size", 256 if second else 224),
        patch_size=backbone.integer("patch_size", 4),
        in_chans=backbone.integer("in_channels", 3),
        small_map="pad_shift" if padded else "pad",
        absolute_position=backbone.flag("use_abs_pos_embed", False),
        drop_rate=drop_rate,
        block_drop_rate=0.0 if drop_rate else None,
        drop_path_rate=backbone.number("drop_path_rate", 0.1),
        pretrained_windows=backbone.integers("pretrained_window_sizes", same, len(depths)),
        out_indices=_outputs(backbone, [len(depths) - 1], len(depths)),
        output_norm="norm_cfg" not in backbone or backbone.keys["norm_cfg"].value is not None,
    )


def _arch(backbone: Section) -> tuple[int, list[int], list[int]]:
    """Channels, blocks and heads, by a name or by a mapping of the three."""
    node = backbone.find("arch")
    if node is not None and isinstance(node.value, dict):
        given = Section(node, backbone.named("arch"))
        given.only(("embed_dims", "depths", "num_heads", "extra_norm_every_n_blocks"), _NOTE)
        why = "should be 0: a spec has no norm after some of the blocks"
        _refuse(given, "extra_norm_every_n_blocks", 0, why)
        blocks = given.integers("depths", (2, 2, 6, 2))
        heads = given.integers("num_heads", (3, 6, 12, 24), len(blocks))
        return given.integer("embed_dims", 96), blocks, heads
    arch = backbone.text("arch", "tiny").lower()
    known = [full for full in _ARCHS if arch in (full, full[0])]
    if not known:
        raise backbone.error("arch", f"should be one of {', '.join(_ARCHS)}, got {arch!r}")
    dim, depths, num_heads = _ARCHS[known[0]]
    return dim, [*depths], [*num_heads]


def _windows(backbone: Section, default: int, stages: int) -> list[int]:
    """Windows: of `window_size`, or of `stage_cfgs.block_cfgs.window_size`, which wins."""
    node = backbone.find("window_size")
    if node is not None and isinstance(node.value, list):
        windows = backbone.integers("window_size", (), stages)
    else:
        windows = [backbone.integer("window_size", default)] * stages
    node = backbone.find("stage_cfgs")
    if node is None or node.value is None:
        return windows
    several = node.value if isinstance(node.value, list) else [node] * stages
    if len(several) != stages:
        raise backbone.error("stage_cfgs", f"should have {stages} entries, got {len(several)}")
    for i, one in enumerate(several):
        stage = Section(one, backbone.named("stage_cfgs"))
        stage.only(("block_cfgs", "window_size"), "a spec of a config can say no more of a stage")
        windows[i] = stage.integer("window_size", windows[i])
        if (blocks := stage.section("block_cfgs")) is not None:
            blocks.only(("window_size",), "a spec of a config can say no more of a block")
            windows[i] = blocks.integer("window_size", windows[i])
    return windows


def _classify(network: Swin, model: Section, kind: str) -> str:
    """Give a network the classifier of its config, or return that a spec cannot say it."""
    neck, head = (_type_of(model, key) for key in ("neck", "head"))
    if list(network.out_indices or ()) == [len(network.depths) - 1] and network.output_norm:
        if (neck, head) == ("GlobalAveragePooling", "LinearClsHead"):
            found = model.section("head")
            assert found is not None
            network.head = {"num_classes": found.integer("num_classes", 1000, 0, 1_000_000)}
            network.out_indices = None
            return ""
        if kind == "SimMIMSwinTransformer":
            network.head, network.out_indices = {"num_classes": 0}, None
            return "the encoder of SimMIM, without its mask token and its decoder"
    return f"features alone, without the head {head!r} after {neck or 'no neck'!r}" if head else ""


def _type_of(model: Section, key: str) -> str:
    """The `type` of a part of the model, without its scope; "" for no part, or for several."""
    node = model.keys.get(key)
    if node is None or not isinstance(node.value, dict):
        return ""
    return Section(node, model.named(key)).text("type", "").rpartition(".")[2]


def _outputs(backbone: Section, default: Any, stages: int) -> list[int]:
    indices: list[int] = backbone.take(
        "out_indices",
        list(default),
        lambda v: isinstance(v, list) and bool(v) and all(i in range(stages) for i in v),
        f"a list of stages, from 0 to {stages - 1}",
    )
    return sorted({*indices})


def _pair(section: Section, key: str, default: int = 224) -> tuple[int, int]:
    """An image size: an integer, or (height, width)."""
    node = section.find(key)
    if node is not None and isinstance(node.value, list):
        sides = section.integers(key, ())
        if len(sides) <= 2:
            return sides[0], sides[-1]
    side = section.integer(key, default)
    return side, side


def _refuse(section: Section, key: str, said: object, why: str) -> None:
    section.refuse(key, lambda value: value == said or value is None, why)


def _type(section: Section, key: str, keys: tuple[str, ...]) -> tuple[str, Section | None]:
    """The `type` of a mapping that builds a layer, and the mapping; "" if it is missing."""
    found = section.section(key)
    if found is None:
        return "", None
    found.only(("type", *keys), "a spec can say no more of it")
    return found.text("type", "").rpartition(".")[2], found


def _activation(backbone: Section) -> str:
    kind, found = _type(backbone, "act_cfg", ("inplace",))
    known = {"": "gelu", "GELU": "gelu", "ReLU": "relu"}
    if kind not in known:
        assert found is not None
        raise found.error("type", f"should be GELU or ReLU, which a spec can say, got {kind!r}")
    return known[kind]


def _eps(backbone: Section) -> float:
    """The epsilon of the norms."""
    kind, found = _type(backbone, "norm_cfg", ("eps", "requires_grad"))
    if found is None:
        return 1e-5
    if kind not in ("LN", "LayerNorm"):
        raise found.error("type", f"should be LN, got {kind!r}")
    return found.number("eps", 1e-5)
