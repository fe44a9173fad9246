"""timm's network for each preset, as the reference that ours is compared with.

It is built by timm's own entry point, so that widths, depths, norms and epsilons are timm's, and
not taken from our spec. A small network has the same parts at a small width and depth.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest.mock import patch

import timm
import torch
from torch import Tensor, nn

import hierarch
from hierarch.spec.backbone import BackboneSpec

_AVERAGED = {"class_token": False, "global_pool": "avg", "fc_norm": False}

NAMES: list[tuple[str, str, dict[str, Any]]] = [
    (r"swin_(tiny|small|base|large)", r"swin_\1_patch4_window7_224", {}),
    (r"swin_(base|large)_384", r"swin_\1_patch4_window12_384", {}),
    (
        r"swin_tiny_d24",
        r"swin_tiny_patch4_window7_224",
        {"img_size": 256, "window_size": 8, "num_heads": (4, 8, 16, 32)},
    ),
    (r"swin_v2_(\w+)", r"swinv2_\1", {}),
    (r"identityformer_(\w+)", r"poolformerv2_\1", {"token_mixers": nn.Identity}),
    (r"poolformer_v2_(\w+)", r"poolformerv2_\1", {}),
    (r"(poolformer|convformer|caformer)_([sbm]\d+)", r"\1_\2", {}),
    (r"convnext_v2_(atto|femto|pico|nano)", r"convnextv2_\1", {"conv_mlp": False}),
    (r"convnext_v2_(\w+)", r"convnextv2_\1", {}),
    (r"convnext_(\w+)", r"convnext_\1", {}),
    (r"pvt_v2_(b\d)", r"pvt_v2_\1", {}),
    (r"pvt_v2_b2_linear", "pvt_v2_b2_li", {}),
    (r"twins_(\w+)", r"twins_\1", {}),
    (r"inception_next_(\w+)", r"inception_next_\1", {}),
    (r"davit_(\w+)", r"davit_\1", {}),
    (r"maxvit_(\w+)", r"maxvit_\1_tf_224", {}),
    (r"focalnet_(tiny|small|base)_(\w+)", r"focalnet_\1_\2", {}),
    (r"focalnet_large_(\w+)", r"focalnet_large_\1", {"num_classes": 21_842}),
    (r"deit_(\w+)_patch16", r"deit_\1_patch16_224", {}),
    (r"dinov2_(\w+)_patch14_registers", r"vit_\1_patch14_reg4_dinov2", {}),
    (r"dinov3_(\w+)_patch16", r"vit_\1_patch16_dinov3", {"global_pool": "token"}),
    (r"parallel_vit_wee_patch16", "vit_pwee_patch16_reg1_gap_256", {}),
    (r"vit_(\w+)_patch16", r"vit_\1_patch16_224", _AVERAGED),
    (r"mlp_mixer_base_patch16", "mixer_b16_224", {}),
    (r"resmlp_s(\d+)", r"resmlp_\1_224", {}),
]
"""A preset's name, timm's name, and further arguments of timm's."""


@dataclass(frozen=True)
class Oracle:
    """One of timm's networks."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What its constructor is told, over what the entry point says."""

    def build(self, **arguments: Any) -> nn.Module:
        """The network, at random; `arguments` are for its constructor, whatever its entry point
        says."""
        module = sys.modules[timm.models.model_entrypoint(self.name).__module__]
        cls = self._network(module)
        changed = {**self.arguments, **arguments}

        def constructed(**published: Any) -> nn.Module:
            made: nn.Module = cls(**(published | changed))
            return made

        with patch.object(module, cls.__name__, constructed):
            return timm.create_model(self.name).eval()

    def _network(self, module: ModuleType) -> type[nn.Module]:
        names = "SwinTransformer", "SwinTransformerV2", "MetaFormer", "ConvNeXt", "MlpMixer"
        names += ("VisionTransformer" + "Distilled" * ("distilled" in self.name),)
        names += "PyramidVisionTransformerV2", "Twins", "FocalNet", "DaVit", "MetaNeXt", "MaxxVit"
        names += ("Eva",)
        return next(getattr(module, n) for n in names if n in vars(module))


def oracle(preset: str) -> Oracle | None:
    """timm's network for a preset, if it has one."""
    for pattern, name, arguments in NAMES:
        if found := re.fullmatch(pattern, preset.rpartition("/")[2]):
            return Oracle(found.expand(name), arguments)
    return None


def small(preset: str) -> tuple[BackboneSpec, dict[str, Any]]:
    """A preset with two blocks a stage, few channels and 10 classes, and the same for timm."""
    spec = hierarch.load(preset)
    family = preset.split("/")[0].split("_")[0]
    told: dict[str, Any] = {"num_classes": 10}
    depths = (2,) * len(spec.stages)
    if family == "swin":
        [head_dim] = {mixer.to_data()["head_dim"] for mixer in spec.plan()[0].mixers}
        dims = tuple(head_dim * heads for heads in (1, 2, 4, 8))
        told |= {"embed_dim": head_dim, "num_heads": (1, 2, 4, 8), "depths": depths}
    elif family in ("metaformer", "convnext", "inception"):
        dims = (8, 16, 32, 64)
        told |= {"dims": dims, "depths": depths}
    elif family == "pvt":
        dims, heads = (16, 32, 40, 64), (1, 2, 5, 8)
        told |= {"embed_dims": dims, "num_heads": heads, "depths": depths}
    elif family == "twins":
        dims, heads = (32, 64, 96, 128), (1, 2, 3, 4)
        if "pcpvt" in preset:
            dims = tuple(2 * dim for dim in dims)
        told |= {"embed_dims": dims, "num_heads": heads, "depths": depths}
    elif family == "davit":
        dims, heads = (32, 64, 96, 128), (1, 2, 3, 4)
        told |= {"embed_dims": dims, "num_heads": heads, "depths": (1,) * len(dims)}
    elif family == "maxvit":
        dims, stem = (32, 64, 96, 128), 16 if spec.stem_dim else 32
        told |= {"embed_dim": dims, "depths": depths, "stem_width": stem, "head_hidden_size": 128}
        depths = (5,) * len(dims)  # of two MBConvs a stage, the first is its downsampling
    elif family == "focalnet":
        dims = (16, 32, 64, 128)
        told |= {"embed_dim": 16, "depths": depths}
    elif family == "vit":
        dims = (128,)
        told |= {"embed_dim": 128, "num_heads": 2, "depth": 2}
    else:
        dims = (32,)
        told |= {"embed_dim": 32, "num_blocks": 2}
        if hidden := spec.plan()[0].mixers[0].to_data().get("hidden_dim"):
            told |= {"mlp_ratio": (hidden / 32, 4.0)}
    stages = [
        stage.to_data() | {"dim": dim, "depth": depth}
        for stage, dim, depth in zip(spec.stages, dims, depths, strict=True)
    ]
    assert spec.head is not None
    changed = {"stages": stages, "head": spec.head.to_data() | {"num_classes": 10}}
    changed |= {"stem_dim": told["stem_width"]} if spec.stem_dim else {}
    return hierarch.load(spec.to_data() | changed), told


def relative(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def difference(model: hierarch.Backbone, peer: nn.Module, images: Tensor) -> float:
    """How far our logits are from a peer's that is given our weights, relative to the largest."""
    peer.load_state_dict(hierarch.export_weights(model, layout="timm"), strict=True)
    return relative(model(images), peer(images))
