"""hierarch itself: any network, under the names of its own state dict."""

from __future__ import annotations

from collections.abc import Collection

from hierarch.weights.layout import Layout
from hierarch.weights.names import row
from hierarch.weights.registry import register_layout


def _is_own(names: Collection[str]) -> bool:
    return "stem.proj.weight" in names and any(n.startswith("stages.0.blocks.0.") for n in names)


register_layout(
    Layout(
        "hierarch",
        "any",
        [row(f"{top}.*", f"{top}.*") for top in ("stem", "position_embedding", "norm", "head")]
        + [row("stages.{i}.*", "stages.{i}.*")],
        _is_own,
        axes=None,
    )
)
