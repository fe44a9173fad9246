"""Pictures of networks: what they cost, how they cut an image into windows, what they look at.

    figure = hierarch.plots.cost("swin_tiny", "swin_small")
    hierarch.plots.save(figure, "cost.svg")

A kind of plot is one file in `kinds/`, named as its function. The names here, and those of
`hierarch plot`, are read from the folder; only type checkers need a list. The function takes specs
(and models or reports, where it says so), has keyword-only options, and returns a matplotlib
`Figure` with a caption. Names are imported when they are first used, so that nothing needs
matplotlib before.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.errors import PlotError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hierarch.plots.kinds.architecture import architecture as architecture
    from hierarch.plots.kinds.attention import attention as attention
    from hierarch.plots.kinds.bias import bias as bias
    from hierarch.plots.kinds.cost import cost as cost
    from hierarch.plots.kinds.features import features as features
    from hierarch.plots.kinds.receptive import receptive as receptive
    from hierarch.plots.kinds.share import share as share
    from hierarch.plots.kinds.shift import shift as shift
    from hierarch.plots.kinds.windows import windows as windows
    from hierarch.plots.style import save as save

KINDS = tuple(
    sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "kinds")]))
)
"""The names of all kinds of plots."""

__all__ = [*KINDS, "save"]


def drawer(kind: str) -> Callable[..., Figure]:
    """The function that draws a kind of plot. Raises `PlotError` for one that is none."""
    if kind not in KINDS:
        raise PlotError(f"unknown kind of plot {kind[:80]!r}; known: {', '.join(KINDS)}")
    found: Callable[..., Figure] = getattr(import_module(f"{__name__}.kinds.{kind}"), kind)
    return found


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hierarch.plots' has no attribute {name!r}")
    home = import_module("hierarch.plots.style") if name == "save" else None
    value = getattr(home, name) if home else drawer(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
