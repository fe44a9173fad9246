"""Small Swin networks of other libraries, and the kind of output of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
from helpers import noise, perturb
from torch import Tensor, nn
from torchvision.models import swin_transformer as tv
from transformers import (
    SwinBackbone,
    SwinConfig,
    SwinForImageClassification,
    SwinModel,
    Swinv2Backbone,
    Swinv2Config,
    Swinv2ForImageClassification,
    Swinv2Model,
)

Size = tuple[int, int]

TIMM, TORCHVISION, HUGGING_FACE = "timm", "torchvision", "huggingface"


@dataclass(frozen=True)
class Peer:
    """One network of another library."""

    library: str
    network: str
    build: Callable[[Size], nn.Module]
    """Builds the peer for images of a size, which some libraries' networks fix."""
    size: Size
    """Its own image size."""
    other_sizes: tuple[Size, ...] = ()
    """Other image sizes at which it computes the same function as ours, padding included."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of `from_checkpoint` that its weights do not determine."""

    @property
    def layout(self) -> str:
        return f"{self.library}:{self.network}"

    @property
    def in_chans(self) -> int:
        return next(p.shape[1] for p in self.build(self.size).parameters() if p.ndim == 4)

    def trained(self, size: Size | None = None) -> nn.Module:
        """With noise on every weight; the same weights for each size."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            peer = perturb(self.build(size or self.size), seed=3)
        if self.layout == "torchvision:swin_v2":
            _zero_key_biases(peer)
        return peer

    def images(self, size: Size) -> Tensor:
        return noise(2, self.in_chans, *size)


def _zero_key_biases(peer: nn.Module) -> None:
    """torchvision's V2 has biases of keys, and sets them to 0 in each forward pass."""
    with torch.no_grad():
        for name, bias in peer.named_parameters():
            if name.endswith("attn.qkv.bias"):
                bias.chunk(3)[1].zero_()


def _timm(v2: bool = False, **options: Any) -> Callable[[Size], nn.Module]:
    kind = timm.models.SwinTransformerV2 if v2 else timm.models.SwinTransformer
    return lambda size: kind(**{"img_size": size, "num_classes": 5, **options})


def _torchvision(v2: bool = False, **options: Any) -> Callable[[Size], nn.Module]:
    blocks = (
        {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2} if v2 else {}
    )
    shape = {"patch_size": [4, 4], "num_classes": 5, "mlp_ratio": 2.0}
    return lambda size: tv.SwinTransformer(**{**shape, **blocks, **options})


def _hugging_face(kind: type[nn.Module], **options: Any) -> Callable[[Size], nn.Module]:
    config = Swinv2Config if "v2" in kind.__name__ else SwinConfig

    def build(size: Size) -> nn.Module:
        # at a size of its own, so that V2's windows are cut for it
        fields = {"image_size": size, "num_labels": 5, "patch_size": 4, **options}
        return kind(config(**fields))

    return build


ODD = {"embed_dim": 12, "depths": [1, 3, 2], "num_heads": [2, 3, 8]}
"""Heads of 6, 8 and 6 channels; shifts in the last two stages only."""

FIVE = {"embed_dim": 4, "depths": [2, 1, 1, 1, 2], "num_heads": [1, 2, 2, 4, 8]}

TIMM_PEERS = {
    "timm v1": Peer(
        TIMM, "swin", _timm(**ODD, window_size=3, mlp_ratio=3.0), (48, 48), ((96, 48),)
    ),
    "timm v1 without qkv_bias": Peer(
        TIMM, "swin", _timm(**ODD, window_size=5, qkv_bias=False, in_chans=1), (80, 80)
    ),
    "timm v1 without a head, patch 2": Peer(
        TIMM,
        "swin",
        _timm(**ODD, window_size=4, num_classes=0, patch_size=2),
        (32, 32),
        ((32, 64),),
    ),
    "timm v1 of five stages": Peer(TIMM, "swin", _timm(**FIVE, window_size=2), (128, 128)),
    "timm v1 of one stage": Peer(
        TIMM,
        "swin",
        _timm(embed_dim=8, depths=[2], num_heads=[2], window_size=4),
        (32, 32),
        ((16, 48),),
    ),
    "timm v1, windows 2x4": Peer(
        TIMM,
        "swin",
        _timm(**ODD, window_size=(2, 4)),
        (32, 64),
        ((64, 64),),
        options={"window_size": (2, 4)},
    ),
    "timm v2": Peer(
        TIMM,
        "swin",
        _timm(v2=True, **ODD, window_size=3),
        (48, 48),
        ((48, 96),),
        options={"window_size": 3},
    ),
    "timm v2 without qkv_bias, windows 2x4": Peer(
        TIMM,
        "swin",
        _timm(v2=True, **ODD, window_size=(2, 4), qkv_bias=False, mlp_ratio=2.0),
        (32, 64),
        options={"window_size": (2, 4)},
    ),
    "timm v2 without a head": Peer(
        TIMM,
        "swin",
        _timm(v2=True, **ODD, window_size=4, num_classes=0, in_chans=4),
        (64, 64),
        options={"window_size": 4},
    ),
}

PADDED = ((44, 92), (20, 68), (8, 12))
"""Sizes with partial windows, odd maps to merge, and maps smaller than a window."""

TORCHVISION_PEERS = {
    "torchvision v1": Peer(
        TORCHVISION, "swin", _torchvision(**ODD, window_size=[3, 3]), (48, 48), PADDED
    ),
    "torchvision v1, windows 4x6": Peer(
        TORCHVISION,
        "swin",
        _torchvision(**ODD, window_size=[4, 6]),
        (64, 96),
        PADDED,
        options={"window_size": (4, 6)},
    ),
    "torchvision v1, patch 2, five stages": Peer(
        TORCHVISION, "swin", _torchvision(**FIVE, window_size=[2, 2], patch_size=[2, 2]), (64, 64)
    ),
    "torchvision v2": Peer(
        TORCHVISION, "swin_v2", _torchvision(v2=True, **ODD, window_size=[5, 5]), (80, 80), PADDED
    ),
    "torchvision v2, windows 4x6": Peer(
        TORCHVISION,
        "swin_v2",
        _torchvision(v2=True, **ODD, window_size=[4, 6], mlp_ratio=3.0),
        (64, 96),
        PADDED,
    ),
}

_HF = partial(_hugging_face, **ODD, window_size=4, mlp_ratio=2.0)
HF_PADDED = ((84, 100), (82, 98))
"""Sizes with partial windows and patches; transformers fails on a map smaller than a window."""

HUGGING_FACE_PEERS = {
    "huggingface v1": Peer(
        HUGGING_FACE, "swin", _HF(SwinForImageClassification), (64, 64), HF_PADDED
    ),
    "huggingface v1, positions": Peer(
        HUGGING_FACE,
        "swin",
        _HF(SwinForImageClassification, use_absolute_embeddings=True, window_size=3),
        (48, 48),
    ),
    "huggingface v1 without qkv_bias": Peer(
        HUGGING_FACE,
        "swin",
        _HF(SwinForImageClassification, qkv_bias=False, num_channels=1),
        (64, 64),
    ),
    "huggingface v1 Model": Peer(HUGGING_FACE, "swin", _HF(SwinModel), (64, 64), HF_PADDED),
    "huggingface v1 Backbone": Peer(
        HUGGING_FACE,
        "swin",
        _HF(SwinBackbone, out_features=["stage1", "stage2", "stage3"]),
        (64, 64),
        HF_PADDED,
    ),
    "huggingface v1 Backbone, two outputs": Peer(
        HUGGING_FACE, "swin", _HF(SwinBackbone, out_features=["stage1", "stage3"]), (64, 64)
    ),
    "huggingface v2": Peer(
        HUGGING_FACE,
        "swin_v2",
        _HF(Swinv2ForImageClassification),
        (64, 64),
        HF_PADDED,
        options={"window_size": 4},
    ),
    "huggingface v2 without qkv_bias": Peer(
        HUGGING_FACE,
        "swin_v2",
        _HF(Swinv2ForImageClassification, qkv_bias=False, num_channels=4),
        (64, 64),
        options={"window_size": 4},
    ),
    "huggingface v2 Model": Peer(
        HUGGING_FACE, "swin_v2", _HF(Swinv2Model), (64, 64), options={"window_size": 4}
    ),
    "huggingface v2 Backbone": Peer(
        HUGGING_FACE,
        "swin_v2",
        _HF(Swinv2Backbone, out_features=["stage1", "stage2", "stage3"]),
        (64, 64),
        options={"window_size": 4},
    ),
}

PEERS = TIMM_PEERS | TORCHVISION_PEERS | HUGGING_FACE_PEERS


def outputs(peer: nn.Module, images: Tensor) -> list[Tensor]:
    """The output: logits, features of the last stage (B, N, C), or maps (B, C, H, W)."""
    with torch.no_grad():
        found = peer(images)
    if isinstance(found, Tensor):
        return [found]
    for name in ("logits", "feature_maps"):
        if (values := getattr(found, name, None)) is not None:
            return [values] if isinstance(values, Tensor) else list(values)
    return [found.last_hidden_state]


def cases(peers: Mapping[str, Peer] = PEERS) -> Iterator[tuple[str, Size]]:
    """Every peer with each of its sizes."""
    for name, peer in peers.items():
        for size in (peer.size, *peer.other_sizes):
            yield name, size
