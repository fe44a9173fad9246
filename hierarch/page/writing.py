"""`write_report`: networks, and what was found of them, as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from hierarch.errors import FormatError
from hierarch.files import write_text
from hierarch.needs import require
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.load import Source


def write_report(
    specs: Source | Iterable[Source],
    path: str | os.PathLike[str],
    *,
    sizes: Iterable[int | Sequence[int]] | None = None,
    bench: Iterable[str | os.PathLike[str]] = (),
    results: Iterable[str | os.PathLike[str]] = (),
    advance: Callable[[int, int], object] | None = None,
) -> Path:
    """Write one HTML file that shows networks, and return its path.

    The file holds all that it needs, and opens from disk: each network's architecture, its cost at
    each image size (pixels, or (height, width); four of them, if not given), the windows and masks
    of its blocks, its spec; several specs also side by side, the first the reference. `bench` are
    files of `hierarch bench --format json`; `results` are run folders or `results.json` of
    `hierarch train` and `hierarch ablate`. `advance` is called with the specs measured and their
    number.

    Raises `SpecError` for a spec or a size that is none, `DataError` for results that are none,
    `FormatError` where the file cannot be written, and `MissingPackageError` without matplotlib.

    >>> pooling = {"name": "pooling", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> write_report(pooling, "report.html", sizes=[64]).stat().st_size > 10_000
    True
    """
    require("matplotlib", "jinja2", "pygments", extra="plot")
    from hierarch.page.content import content
    from hierarch.page.rendering import html

    is_one = isinstance(specs, BackboneSpec | str | os.PathLike | Mapping)
    found = content(
        cast(list[Source], [specs]) if is_one else cast(Iterable[Source], specs),
        sizes,
        bench=map(Path, bench),
        results=map(Path, results),
        advance=advance,
    )
    target = Path(path)
    try:
        write_text(target, html(found))
    except OSError as error:
        raise FormatError(f"{target}: cannot be written: {error.strerror}") from None
    return target
