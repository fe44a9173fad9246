"""A network's architecture in rows: what `hierarch show` prints."""

from __future__ import annotations

import torch
from torch import nn

from hierarch.building import build
from hierarch.complexity.witnesses import measure
from hierarch.report import Row, giga, shown_size
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import Pair
from hierarch.spec.parts import MixerSpec


def architecture(spec: BackboneSpec, size: Pair) -> list[Row]:
    """One row for the stem, for each stage and for the head, at one image size."""
    with torch.device("meta"):
        model = build(spec)
    cost = measure(spec, [size]).sizes[0]
    strides = model.feature_info.reduction()

    def row(name: str, **cells: object) -> Row:
        columns = ("grid", "stride", "dim", "depth", "mixers", "parameters", "GMACs")
        return {"part": name, **{column: str(cells.get(column, "")) for column in columns}}

    stem, head = [model.stem, model.position_embedding], [model.norm, model.head]
    rows = [row("stem", parameters=_params(*stem), GMACs=giga(cost.stem))]
    for stage, counted, module, stride in zip(
        spec.plan(), cost.stages, model.stages, strides, strict=True
    ):
        cycle = dict.fromkeys(map(_words, stage.mixers))
        rows.append(
            row(
                f"stage {stage.index}",
                grid=shown_size(counted.grid),
                stride=stride,
                dim=stage.dim,
                depth=stage.depth,
                mixers="; ".join(cycle),
                parameters=_params(module),
                GMACs=giga(counted.macs),
            )
        )
    if spec.head:
        rows.append(row("head", parameters=_params(*head), GMACs=giga(cost.head)))
    rows.append(row("total", parameters=_params(model), GMACs=giga(cost.macs)))
    return rows


def _params(*modules: nn.Module) -> str:
    return f"{sum(p.numel() for module in modules for p in module.parameters()):,}"


def _words(mixer: MixerSpec) -> str:
    """A mixer in a few words: its type, its numbers, and what else is not at its default."""
    fields = {
        name: (field, getattr(mixer, name)) for name, field in type(mixer).model_fields.items()
    }
    shown = [
        f"{name}={value}"
        for name, (field, value) in fields.items()
        if name != "type" and value is not None
        if value != field.default or (type(value) is int and value)
    ]
    return " ".join([mixer.type, *shown])
