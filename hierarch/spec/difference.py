"""The difference of two specs in words: what stands in each stage of one for what is in the other.

Defaults count as what they stand for, so that two ways of writing a network do not differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import plain
from hierarch.spec.fields import either, yaml
from hierarch.spec.lattice import mixers
from hierarch.spec.parts import MixerSpec

OF_A_STAGE = (
    *(
        "downsample",
        "position",
        "position_after",
        "block",
        "channel_mixer",
        "mlp_ratio",
        "mlp_bias",
        "activation",
        "norm",
    ),
    *("drop_rate", "layer_scale"),
)
"""Fields that the top level says for every stage that does not say them for itself."""
OF_ALL = (
    *("input_size", "stem", "stem_dim", "position_embedding", "drop_path_rate", "out_indices"),
    *("output_norm", "head"),
)


def difference(reference: BackboneSpec, spec: BackboneSpec) -> tuple[str, ...]:
    """What is another in `spec`, one line for the stages that it holds for; the names may differ.

    >>> from hierarch.spec.load import load
    >>> difference(load("swin_tiny"), load("swin_small"))
    ('stage 2: depth 6 → 18', 'drop_path_rate 0.2 → 0.3')
    """
    counts = len(reference.stages), len(spec.stages)
    by_stage = {
        i: tuple(_changes(_stage(reference, i), _stage(spec, i))) for i in range(min(counts))
    }
    by_change: dict[str, list[int]] = {}
    for stage, changes in by_stage.items():
        for change in changes:
            by_change.setdefault(change, []).append(stage)
    lines: dict[tuple[int, ...], list[str]] = {}
    for change, stages in by_change.items():
        lines.setdefault(tuple(stages), []).append(change)
    every = counts[0] == counts[1]
    return (
        *([] if every else [f"{counts[0]} → {counts[1]} stages"]),
        *(f"{_where(stages, counts)}: {'; '.join(said)}" for stages, said in lines.items()),
        *_changes(*({name: getattr(one, name) for name in OF_ALL} for one in (reference, spec))),
    )


def _where(stages: tuple[int, ...], counts: tuple[int, int]) -> str:
    if len(stages) == counts[0] == counts[1] > 1:
        return "all stages"
    return f"stage{'s' * (len(stages) > 1)} {either(map(str, stages), ' and ')}"


def _stage(spec: BackboneSpec, index: int) -> dict[str, Any]:
    stage = spec.stages[index]
    own = {name: getattr(stage, name) for name in OF_A_STAGE}
    top = {name: getattr(spec, name) for name in OF_A_STAGE if (name, index) != ("downsample", 0)}
    said = {k: top.get(k) if value is None else value for k, value in own.items()}
    return {"mixer": mixers(spec, index), "dim": stage.dim, "depth": stage.depth, **said}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for name, before in old.items():
        after = new[name]
        if name == "mixer":
            yield from _mixers(before, after)
        elif before != after:
            yield f"{name} {_shown(before)} → {_shown(after)}"


def _mixers(old: tuple[MixerSpec, ...], new: tuple[MixerSpec, ...]) -> Iterator[str]:
    types = [" / ".join(dict.fromkeys(mixer.type for mixer in cycle)) for cycle in (old, new)]
    if types[0] != types[1]:
        yield f"{types[1]} for {types[0]}"
        return
    blocks = math.lcm(len(old), len(new))
    if old * (blocks // len(old)) == new * (blocks // len(new)):
        return
    same = True
    for name in dict.fromkeys(name for mixer in old + new for name in type(mixer).model_fields):
        before, after = (_values(cycle, name) for cycle in (old, new))
        if name != "type" and before != after:
            yield f"{name} {before} → {after}"
            same = False
    if same:  # the same mixers in another order, or other numbers of them
        yield f"mixer {' → '.join(yaml([one.to_data() for one in cycle]) for cycle in (old, new))}"


def _values(cycle: tuple[MixerSpec, ...], name: str) -> str:
    return " / ".join(dict.fromkeys(_shown(getattr(mixer, name, None)) for mixer in cycle))


def _shown(value: Any) -> str:
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return "none" if value is None else yaml(plain(value))
