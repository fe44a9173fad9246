"""Microsoft's YAML configs of Swin, Swin V2 and Swin-MLP (its `config.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hierarch.importing.expressions import literal
from hierarch.importing.nodes import Node, Section
from hierarch.importing.swin import Swin

MIXERS = {
    "swin": "window_attention",
    "swinv2": "cosine_window_attention",
    "swin_mlp": "window_mlp",
}
"""The mixer of each MODEL.TYPE that a spec can say."""
_SECTIONS = ("SWIN", "SWINV2", "SWIN_MLP", "SWIN_MOE")
_MODEL = (
    *("TYPE", "NAME", "NUM_CLASSES", "DROP_RATE", "DROP_PATH_RATE", *_SECTIONS),
    *("PRETRAINED", "RESUME", "LABEL_SMOOTHING", "SIMMIM"),
)
_COMMON = (
    *("PATCH_SIZE", "IN_CHANS", "EMBED_DIM", "DEPTHS", "NUM_HEADS", "WINDOW_SIZE"),
    *("MLP_RATIO", "APE", "PATCH_NORM"),
)
_KEYS = {
    "swin": (*_COMMON, "QKV_BIAS", "QK_SCALE"),
    "swinv2": (*_COMMON, "QKV_BIAS", "PRETRAINED_WINDOW_SIZES"),
    "swin_mlp": _COMMON,
}
ARGUMENTS = {*_MODEL[:5], *_KEYS["swin"], *_KEYS["swinv2"]}
"""Keys that describe the network."""
CLASSES = {"imagenet": 1000, "imagenet22K": 21_841}
"""What data/build.py sets MODEL.NUM_CLASSES to, by DATA.DATASET."""
_NOTE = "config.py has no other, so the published code would not read it either"


def swin(root: Node, name: str) -> tuple[Swin, list[str]]:
    """The network of a config, and what is to be said of it. Raises `SpecError`."""
    config = Section(root)
    model = config.section("MODEL") or Section(Node({}, root.place), "MODEL")
    data = config.section("DATA") or Section(Node({}, root.place), "DATA")
    kind = model.text("TYPE", "swin")
    if kind not in MIXERS:
        known = ", ".join(MIXERS)
        raise model.error("TYPE", f"should be one of {known}, which a spec can say, got {kind!r}")
    model.only(_MODEL, _NOTE)
    fields = model.section(kind.upper()) or Section(Node({}, model.node.place), kind.upper())
    fields.only(_KEYS[kind], _NOTE)
    for node in fields.keys.values():
        _decode(node)
    fields.refuse("QK_SCALE", lambda v: v is None, "should be null: a spec has no other scale")
    depths = fields.integers("DEPTHS", (2, 2, 6, 2))
    size = data.integer("IMG_SIZE", 224)
    network = Swin(
        name=model.text("NAME", name),
        mixer=MIXERS[kind],
        dim=fields.integer("EMBED_DIM", 96),
        depths=depths,
        heads=fields.integers("NUM_HEADS", (3, 6, 12, 24), len(depths)),
        windows=[fields.integer("WINDOW_SIZE", 7)] * len(depths),
        input_size=(size, size),
        patch_size=fields.integer("PATCH_SIZE", 4),
        in_chans=fields.integer("IN_CHANS", 3),
        qkv_bias=fields.flag("QKV_BIAS", True),
        mlp_ratio=fields.number("MLP_RATIO", 4),
        patch_norm=fields.flag("PATCH_NORM", True),
        absolute_position=fields.flag("APE", False),
        drop_rate=model.number("DROP_RATE", 0),
        drop_path_rate=model.number("DROP_PATH_RATE", 0.1),
        pretrained_windows=fields.integers(
            "PRETRAINED_WINDOW_SIZES", [0] * len(depths), len(depths)
        ),
    )
    check_heads(network, fields, "NUM_HEADS")
    notes = _fit_windows(network)
    if "SIMMIM" in model or "MASK_RATIO" in data or "MASK_PATCH_SIZE" in data:
        network.head = {"num_classes": 0}
        notes.append("the encoder of SimMIM, without its mask token and its decoder")
    else:
        network.head = {"num_classes": _classes(model, data)}
    return network, notes


def check_heads(network: Swin, fields: Section, key: str) -> None:
    """Raise `SpecError` unless heads divide widths."""
    for dim, heads in zip(network.dims, network.heads, strict=True):
        if not heads or dim % heads:
            raise fields.error(key, f"{heads} heads do not divide a width of {dim}")


def _classes(model: Section, data: Section) -> int:
    """MODEL.NUM_CLASSES, or else what the published code sets it to for a data set."""
    if "NUM_CLASSES" in model:
        return model.integer("NUM_CLASSES", 1000, 0, 1_000_000)
    dataset = data.text("DATASET", "imagenet")
    if dataset not in CLASSES:
        raise data.error("DATASET", f"does not tell the classes, got {dataset!r}: add NUM_CLASSES")
    return CLASSES[dataset]


def _fit_windows(network: Swin) -> list[str]:
    """Shrink windows to maps as the published code does, which takes one image size.

    V2's position bias fits windows of any size, so there it is a rule for maps of any size. In the
    others the weights are of the shrunken window.
    """
    grids = network.grids()
    if network.mixer == "cosine_window_attention":
        network.small_map = "clamp_both"
    else:
        pairs: Sequence[tuple[int, Any]] = list(zip(network.windows, grids, strict=True))
        network.windows = [min(window, *grid) for window, grid in pairs]
    notes = []
    for i, (window, (side, _)) in enumerate(zip(network.windows, grids, strict=True)):
        if side % min(window, side):
            notes.append(
                f"stage {i}: a map of {side} is padded to windows of {window}, and the published "
                "code does not run"
            )
    return notes


def _decode(node: Node) -> None:
    """Text that is a literal of Python stands for its value, as yacs reads it."""
    if isinstance(node.value, str):
        value = literal(node.value)
        lists = isinstance(value, list)
        node.value = [Node(item, node.place) for item in value] if lists else value
