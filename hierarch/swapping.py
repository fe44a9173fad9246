"""Swapping a part, and giving the network that comes out the budget of the one before.

MACs and parameters are the claims', without torch. A latency is timed, so that what is in
`hierarch.bench` is imported where one is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

from hierarch.errors import SpecError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import shown
from hierarch.spec.budget import BudgetName, Macs, Params, spent
from hierarch.spec.grid import Sides, checked_size
from hierarch.spec.lattice import Freedom
from hierarch.spec.load import Source, load
from hierarch.spec.match import Match, check_freedoms
from hierarch.spec.match import match as match_claim
from hierarch.spec.swap import New, Swap
from hierarch.spec.swap import explain as explain_swap

WIDTHS: tuple[Freedom, ...] = ("widths",)


def swap(
    source: Source,
    new: New,
    stages: Sequence[int] | None = None,
    *,
    part: str = "mixer",
    match: BudgetName | None = None,
    at: int | Sequence[int] | None = None,
    move: Sequence[Freedom] = WIDTHS,
) -> BackboneSpec:
    """The spec with another token mixer in some stages (from 0), or in all; or with another
    `part`: a "channel_mixer", "block", "norm", "activation", "downsample" or "stem".

    Fields that both parts have (window_size, shift_size, head_dim, ...) keep their values, the
    rest takes its defaults; `new` may be a name, or a mapping that sets fields as well. A cycle of
    parts stays a cycle where its entries still differ.

    With `match`, the swapped stages are made wider or narrower until the network costs what it did
    before: "macs" for an image of size `at` (pixels, or (height, width); without: the spec's
    `input_size`), "params", or "latency", timed on this machine. `move` says what may move, in its
    order: "widths", "depths", or the MLP's "ratio". Warns where that comes no closer than 1 %, and
    says why; `hierarch.swapping.explain` returns the same in data.

    Raises `SpecError` for an unknown part, a stage that is not there, a mixer that does not fit
    the widths, and for a budget, a size or a `move` that is none.

    >>> swap("swin_tiny", "window_mlp", stages=[0]).stages[0].mixer[1].shift_size
    3
    >>> swap("swin_tiny", "grn_mlp", part="channel_mixer").channel_mixer.type
    'grn_mlp'
    >>> [stage.dim for stage in swap("swin_tiny", "pooling", match="macs").stages]
    [120, 240, 472, 944]
    """
    found = explain(source, new, stages, part=part, match=match, at=at, move=move)
    if found.match and found.match.why:
        warnings.warn("\n".join(found.match.notes), stacklevel=2)
    return found.spec


def explain(
    source: Source,
    new: New,
    stages: Sequence[int] | None = None,
    *,
    part: str = "mixer",
    match: BudgetName | None = None,
    at: int | Sequence[int] | None = None,
    move: Sequence[Freedom] = WIDTHS,
    advance: Callable[[int, int], object] | None = None,
) -> Swap:
    """Swap a part as `swap` does, and also return where each field's value comes from, and
    how the budget was met. `advance` is called with the steps of timing done and their number.

    >>> found = explain("swin_tiny", "pooling", match="params", move=["ratio"])
    >>> found.spec.mlp_ratio
    6.0
    """
    if match is None:
        if at is not None or tuple(move) != WIDTHS:
            raise SpecError("a size, and what may move, are for a budget: give match, too")
        return explain_swap(source, new, stages, part=part)
    if match not in get_args(BudgetName):
        known = ", ".join(get_args(BudgetName))
        raise SpecError(f"unknown budget {shown(match)}; known: {known}")
    if match == "params" and at is not None:
        raise SpecError("parameters do not depend on the image's size: leave it out")
    check_freedoms(move)
    spec = load(source)
    swapped = explain_swap(spec, new, stages, part=part)
    size = spec.size if at is None else checked_size(at, axes=spec.axes)
    moved = range(len(spec.stages)) if stages is None else sorted(set(stages))
    if match == "latency":
        from hierarch.bench.latency import match_latency

        found = match_latency(spec, swapped.spec, size, stages=moved, move=move, advance=advance)
    else:
        found = _match(spec, swapped.spec, match, size, moved, move)
    return replace(swapped, spec=found.spec, match=found)


def _match(
    spec: BackboneSpec,
    swapped: BackboneSpec,
    name: BudgetName,
    size: Sides,
    stages: Sequence[int],
    move: Sequence[Freedom],
) -> Match:
    if name == "macs":
        target = spent(Macs.of(spec, size), spec.plan())
        return match_claim(swapped, Macs.of(swapped, size), target, stages=stages, move=move)
    target = spent(Params(spec), spec.plan())
    return match_claim(swapped, Params(swapped), target, stages=stages, move=move)
