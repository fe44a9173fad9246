"""Comparing specs: each one measured, and timed where that is asked for, beside the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hierarch.complexity import measure
from hierarch.errors import SpecError
from hierarch.report import Compared, Comparison, Report
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.difference import difference
from hierarch.spec.grid import MAX_SIDE, Sides, checked_size
from hierarch.spec.load import Source, load


def compare(
    specs: Iterable[Source],
    sizes: Iterable[int | Sequence[int]] | None = None,
    *,
    bench: bool = False,
    rounds: int = 10,
    threads: int | None = None,
    advance: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Two specs or more side by side, the first the reference: parameters, MACs and activations at
    each image size (pixels, or (height, width)), the verdict, and how the specs differ in words.

    Without `sizes`: the first spec's `input_size`, and twice that. With `bench`, also images a
    second and the peak memory of a call, in `rounds` rounds of one rotation (`hierarch.benchmark`).
    `advance` is called with the steps done and their number. Raises `SpecError` for fewer than two
    specs, and for a spec or a size that is none.

    >>> found = compare(["swin_tiny", "swin_small"], sizes=[224])
    >>> found.networks[1].difference
    ('stage 2: depth 6 → 18', 'drop_path_rate 0.2 → 0.3')
    """
    loaded = [load(source) for source in specs]
    if len(loaded) < 2:
        raise SpecError(f"{len(loaded)} specs: give two or more, the first to compare with")
    axes = loaded[0].axes
    wanted = (
        _default_sizes(loaded[0].size)
        if sizes is None
        else [checked_size(size, axes=axes) for size in sizes]
    )
    checked = list(dict.fromkeys(wanted))
    if not checked:
        raise SpecError("no image size to compare at")
    reports = []
    for spec in loaded:
        reports.append(measure(spec, checked))
        if advance:
            advance(len(reports), len(loaded))
    networks = side_by_side(loaded, reports)
    if not bench:
        return Comparison(networks=tuple(networks))
    from hierarch.bench import benchmark

    timed = benchmark(
        loaded, sizes=checked, rounds=rounds, threads=threads, gemm_side=0, advance=advance
    )
    rows = zip(*(setting.rows for setting in timed.settings), strict=True)
    networks = [replace(one, timed=own) for one, own in zip(networks, rows, strict=True)]
    return Comparison(networks=tuple(networks), bench=timed)


def side_by_side(specs: Sequence[BackboneSpec], reports: Sequence[Report]) -> list[Compared]:
    """Each spec's report, measured at the same sizes, and how the spec differs from the first. Of
    specs that share a name, each gets a number."""
    names = Counter(spec.name for spec in specs)
    return [
        Compared(
            report=replace(report, name=f"{spec.name} #{i}") if names[spec.name] > 1 else report,
            difference=difference(specs[0], spec),
        )
        for i, (report, spec) in enumerate(zip(reports, specs, strict=True), 1)
    ]


def _default_sizes(size: Sides) -> list[Sides]:
    return [tuple(n * side for side in size) for n in (1, 2) if max(size) * n <= MAX_SIDE]
