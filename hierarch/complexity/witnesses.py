"""Claim and count at each image size, and the verdict on linearity."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from hierarch.building import build
from hierarch.complexity.counter import Counts, count
from hierarch.errors import SpecError
from hierarch.report import Report, SizeReport, StageReport, Verdict
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import PARTS, Claim, base_size, claim, growing
from hierarch.spec.grid import MAX_SIDE, Sides, checked_size
from hierarch.spec.load import Source, load

_PART = re.compile(
    r"stages\.(\d+)\.(?:blocks\.\d+\.)?(downsample|(?:position|norm)[12]?|mixer|mlp)"
)


def default_sizes(spec: BackboneSpec) -> list[Sides]:
    """Up to four image sizes, each with twice the sides of the one before, from the smallest at
    which nothing is padded.

    Raises `SpecError` if that exceeds `MAX_SIDE`.
    """
    base = base_size(spec)
    if max(base) > MAX_SIDE:
        raise SpecError(
            f"{spec.name}: no image of up to {MAX_SIDE} pixels a side fits its windows without "
            "padding; give the sizes to measure at"
        )
    factors = (n for n in (1, 2, 4, 8) if max(base) * n <= MAX_SIDE)
    return [tuple(side * n for side in base) for n in factors]


def measure(
    source: Source,
    sizes: Iterable[int | Sequence[int]] | None = None,
    *,
    advance: Callable[[], object] | None = None,
) -> Report:
    """The cost of a network in MACs at each image size (pixels, or one number per axis).

    The network is built and traced on the meta device, so no size is too large. `advance` is called
    after each size. The verdict is "linear" if the claimed cost per token stays bounded as the grid
    doubles without end and the count equals the claim at every size, "superlinear" if it does not
    stay bounded, and "unproven" if claim and count differ. Raises `SpecError` for an invalid spec
    or size, and `CountError` for an operator without a rule.

    >>> measure("swin_tiny", sizes=[224]).sizes[0].macs
    4509194496
    """
    spec = load(source)
    checked = (
        default_sizes(spec) if sizes is None else [checked_size(s, axes=spec.axes) for s in sizes]
    )
    if not checked:
        raise SpecError("no image size to measure at")
    with torch.device("meta"):
        model = build(spec).eval()
    measured = []
    for size in checked:
        counts = count(model, size, in_chans=spec.stem.in_chans)
        measured.append(_size(spec, size, counts, claim(spec, size)))
        if advance:
            advance()
    exponent, r2 = power_law([(s.pixels, s.macs - s.head) for s in measured])
    verdict, why = _verdict(spec, measured)
    return Report(
        name=spec.name,
        params=sum(parameter.numel() for parameter in model.parameters()),
        sizes=tuple(measured),
        exponent=exponent,
        r2=r2,
        verdict=verdict,
        why=why,
    )


def _size(spec: BackboneSpec, size: Sides, counts: Counts, claimed: Claim) -> SizeReport:
    plan = spec.plan()
    parts = [dict.fromkeys(PARTS, 0) for _ in plan]
    for module in counts.macs:
        if match := _PART.fullmatch(module):
            stage, name = match[1], match[2].rstrip("12")
            part = "downsampling" if name == "downsample" else name
            parts[int(stage)][part] += counts.total(module)
    stages = tuple(
        StageReport(
            index=i,
            dim=stage.dim,
            depth=stage.depth,
            grid=claimed.stages[i].grid,
            macs=counts.total(f"stages.{i}"),
            claimed_macs=claimed.stages[i].macs,
            parts=parts[i],
            claimed_parts=claimed.stages[i].parts,
        )
        for i, stage in enumerate(plan)
    )
    report = SizeReport(
        size=size,
        macs=counts.total(),
        claimed_macs=claimed.macs,
        activations=counts.activations,
        padding_macs=claimed.padding,
        stages=stages,
        stem=counts.total("stem") + counts.total("position_embedding"),
        head=counts.total("norm") + counts.total("head"),
        claimed_stem=claimed.stem,
        claimed_head=claimed.head,
        operators=dict(sorted(counts.macs[""].items(), key=lambda item: -item[1])),
        modules={name: counts.total(name) for name in counts.macs if counts.total(name)},
    )
    assert report.macs == sum(report.parts.values()), "a MAC outside of stem, stages and head"
    return report


def power_law(points: list[tuple[int, int]]) -> tuple[float | None, float | None]:
    """Exponent and R² of a power law through (pixels, MACs), by least squares on logarithms."""
    if len({pixels for pixels, _ in points}) < 2:
        return None, None
    xs, ys = zip(*((math.log(pixels), math.log(macs)) for pixels, macs in points), strict=True)
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    variance = sum((x - x0) ** 2 for x in xs)
    slope = sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / variance
    left = sum((y - y0 - slope * (x - x0)) ** 2 for x, y in zip(xs, ys, strict=True))
    total = sum((y - y0) ** 2 for y in ys)
    return slope, 1 - left / total if total else 1.0


def _verdict(spec: BackboneSpec, sizes: list[SizeReport]) -> tuple[Verdict, str]:
    reasons = growing(spec)
    if reasons:
        return "superlinear", f"the cost per token grows with the image: {'; '.join(reasons)}"
    for size in sizes:
        for what, counted, claimed in _pairs(size):
            if counted != claimed:
                image = "x".join(map(str, size.size))
                return "unproven", (
                    f"at {image} fvcore counts {counted:,} MACs for the {what}, and the spec "
                    f"claims {claimed:,}"
                )
    where = "every size" if len(sizes) > 1 else "the size"
    return "linear", (
        "the claimed cost per token stays bounded as the grid doubles without end, "
        f"and fvcore's count equals the claim at {where} measured"
    )


def _pairs(size: SizeReport) -> Iterator[tuple[str, int, int]]:
    """(part, counted, claimed) for the stem, each part of each stage, and the head."""
    yield "stem", size.stem, size.claimed_stem
    for stage in size.stages:
        for part, macs in stage.parts.items():
            yield f"{part} of stage {stage.index}", macs, stage.claimed_parts[part]
    yield "head", size.head, size.claimed_head
