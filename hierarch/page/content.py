"""What a page says of networks: measured, compared, cut into windows. Nothing here is HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hierarch.comparing import side_by_side
from hierarch.complexity import default_sizes, measure
from hierarch.complexity.architecture import architecture
from hierarch.errors import SpecError
from hierarch.page.cuts import BlockCut, block_cuts
from hierarch.page.pictures import Picture, picture
from hierarch.page.results import Finding, read_bench, read_results
from hierarch.plots.kinds.architecture import architecture as drawing
from hierarch.plots.kinds.cost import cost
from hierarch.plots.kinds.share import share
from hierarch.report import Architecture, Comparison, PartReport, Report
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides, checked_size
from hierarch.spec.load import Source, dump, load, of_images


@dataclass(frozen=True, kw_only=True)
class Network:
    """One spec's network."""

    name: str
    spec: BackboneSpec
    report: Report
    size: Sides
    """The image of the architecture and of the windows: the spec's nominal size."""
    architecture: Architecture
    drawing: Picture
    """The network, stage by stage."""
    share: Picture
    """Where the cost goes."""
    blocks: tuple[BlockCut, ...]

    @property
    def total(self) -> PartReport:
        """The whole network, at `size`."""
        return self.architecture.parts[-1]

    @property
    def yaml(self) -> str:
        return dump(self.spec)


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that a page says."""

    networks: tuple[Network, ...]
    cost: Picture
    """Of all networks, by the area of the image."""
    comparison: Comparison | None
    """None for a single network."""
    findings: tuple[Finding, ...]
    """Results that were given: benchmarks, then experiments."""


def content(
    sources: Iterable[Source],
    sizes: Iterable[int | Sequence[int]] | None = None,
    *,
    bench: Iterable[Path] = (),
    results: Iterable[Path] = (),
    advance: Callable[[int, int], object] | None = None,
) -> Content:
    """Measure and compare networks, and read results. Files are read first, so that one that is
    wrong is told at once. See `hierarch.write_report`."""
    findings = (*map(read_bench, bench), *map(read_results, results))
    specs = [load(source) for source in sources]
    if not specs:
        raise SpecError("no spec to report on")
    wanted = default_sizes(specs[0]) if sizes is None else [checked_size(size) for size in sizes]
    reports = []
    for spec in specs:
        reports.append(measure(spec, wanted))
        if advance:
            advance(len(reports), len(specs))
    compared = side_by_side(specs, reports)
    return Content(
        networks=tuple(
            _network(spec, one.report) for spec, one in zip(specs, compared, strict=True)
        ),
        cost=picture(cost(*specs, reports=[one.report for one in compared])),
        comparison=Comparison(networks=tuple(compared)) if len(specs) > 1 else None,
        findings=findings,
    )


def _network(spec: BackboneSpec, report: Report) -> Network:
    size = of_images(spec).size
    measured = next((one for one in report.sizes if one.size == size), None)
    parts = architecture(spec, size, measured=measured)
    return Network(
        name=report.name,
        spec=spec,
        report=report,
        size=size,
        architecture=parts,
        drawing=picture(drawing(spec, size=size)),
        share=picture(share(report, size=size if measured else None)),
        blocks=block_cuts(spec, size),
    )
