"""A network's architecture by part, as `hierarch show` prints it."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from hierarch.building import build
from hierarch.complexity.witnesses import measure
from hierarch.report import Architecture, PartReport, SizeReport
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import plain
from hierarch.spec.fields import yaml
from hierarch.spec.grid import Sides
from hierarch.spec.parts import MixerSpec


def architecture(
    spec: BackboneSpec, size: Sides, *, measured: SizeReport | None = None
) -> Architecture:
    """Parameters and MACs of the stem, each stage, the head and the network, at one image size.

    `measured` is what `measure` found for that size, where it is known already.
    """
    with torch.device("meta"):
        model = build(spec)
    cost = measured or measure(spec, [size]).sizes[0]
    stem = _params(model.stem, model.position_embedding, model.extra_tokens)
    parts = [PartReport(part="stem", parameters=stem, macs=cost.stem)]
    for stage, counted, module, stride in zip(
        spec.plan(), cost.stages, model.stages, model.feature_info.reduction(), strict=True
    ):
        parts.append(
            PartReport(
                part=f"stage {stage.index}",
                parameters=_params(module),
                macs=counted.macs,
                grid=counted.grid,
                stride=stride,
                dim=stage.dim,
                mixers=tuple(map(summary, stage.mixers)),
            )
        )
    if spec.head:
        head = _params(model.norm, model.head)
        parts.append(PartReport(part="head", parameters=head, macs=cost.head))
    parts.append(PartReport(part="total", parameters=_params(model), macs=cost.macs))
    return Architecture(tuple(parts))


def _params(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def summary(mixer: MixerSpec, *, omit: Collection[str] = ()) -> str:
    """A mixer in one line: its type, its nonzero integers, and every field not at its default, but
    for those to `omit`."""
    shown = [mixer.type]
    for name, field in type(mixer).model_fields.items():
        value, default = getattr(mixer, name), field.get_default(call_default_factory=True)
        is_size = type(value) is int and value
        if name not in ("type", *omit) and value is not None and (value != default or is_size):
            shown.append(f"{name}={yaml(plain(value))}")
    return " ".join(shown)
