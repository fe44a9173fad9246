"""The claim of parameters: what the parts of a network hold by their formulas, in integers.

Knows no torch. What the built network has must equal it to the unit.
"""

from __future__ import annotations

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.plan import StagePlan


def params(spec: BackboneSpec) -> int:
    """The parameters of the network.

    >>> from hierarch.spec.load import load
    >>> params(load("swin_tiny"))
    28288354
    """
    plan = spec.plan()
    stages = sum(map(stage_params, plan))
    return stem_params(spec, dim=plan[0].in_dim) + stages + head_params(spec, plan[-1])


def stem_params(spec: BackboneSpec, *, dim: int) -> int:
    """The parameters of the stem, the position embedding and the extra tokens, `dim` wide."""
    position = spec.position_embedding.params(dim=dim) if spec.position_embedding else 0
    extra = spec.extra_tokens.params(dim=dim) if spec.extra_tokens else 0
    return spec.stem.params(dim=dim) + position + extra


def stage_params(stage: StagePlan) -> int:
    """The parameters of a stage, with its downsampling and the norm of its output."""
    dim = stage.dim
    total = stage.output_norm.params(dim=dim) if stage.output_norm else 0
    if stage.downsample:
        total += stage.downsample.params(in_dim=stage.in_dim, dim=dim)
    if stage.position:
        total += stage.position.params(dim=dim)
    for block, count in stage.counts():
        total += count * (block.mixer.params(dim=dim) + block.spec.params(block))
    return total


def head_params(spec: BackboneSpec, last: StagePlan) -> int:
    """The parameters of the head, after the last stage; 0 without a head."""
    if spec.head is None:
        return 0
    return spec.head.params(dim=last.dim, norm=last.norm, classifiers=spec.classifiers)
