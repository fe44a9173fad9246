"""The specs of timm's networks, read off their modules, since weights tell neither epsilons nor
activations, nor every window. There is a function for each of timm's classes that a spec fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hierarch.errors import PeerError
from hierarch.weights.shapes import hoisted
from hierarch.weights.timm_networks.convnext import convnext, inception_next
from hierarch.weights.timm_networks.davit import davit
from hierarch.weights.timm_networks.focalnet import focalnet
from hierarch.weights.timm_networks.maxvit import maxvit
from hierarch.weights.timm_networks.metaformer import metaformer
from hierarch.weights.timm_networks.mlp_mixer import mlp_mixer
from hierarch.weights.timm_networks.parts import Data, Read, need
from hierarch.weights.timm_networks.reduced import pvt_v2, twins
from hierarch.weights.timm_networks.stages import drop_path_rate
from hierarch.weights.timm_networks.swin import swin, swin_v2
from hierarch.weights.timm_networks.vit import eva, vision_transformer


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


READERS: dict[str, Callable[[Any], Read]] = {
    "timm.models.swin_transformer.SwinTransformer": swin,
    "timm.models.swin_transformer_v2.SwinTransformerV2": swin_v2,
    "timm.models.metaformer.MetaFormer": metaformer,
    "timm.models.convnext.ConvNeXt": convnext,
    "timm.models.inception_next.MetaNeXt": inception_next,
    "timm.models.pvt_v2.PyramidVisionTransformerV2": pvt_v2,
    "timm.models.twins.Twins": twins,
    "timm.models.focalnet.FocalNet": focalnet,
    "timm.models.davit.DaVit": davit,
    "timm.models.maxxvit.MaxxVit": maxvit,
    "timm.models.vision_transformer.VisionTransformer": vision_transformer,
    "timm.models.deit.VisionTransformerDistilled": vision_transformer,
    "timm.models.eva.Eva": eva,
    "timm.models.mlp_mixer.MlpMixer": mlp_mixer,
}
