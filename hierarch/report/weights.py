"""What became of each weight of a checkpoint, as data, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SHOWN = 12
"""Rows of a table; the rest is counted."""


@dataclass(frozen=True)
class Resampled:
    """A weight that was made to fit."""

    name: str
    """Ours."""
    found: tuple[int, ...]
    """Its shape in the checkpoint."""
    needed: tuple[int, ...]
    """Its shape in the model."""
    how: str

    def __str__(self) -> str:
        found, needed = ("x".join(map(str, shape)) for shape in (self.found, self.needed))
        return f"{self.name}: {found} to {needed}, {self.how}"


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight."""

    layout: str
    """Whose names the checkpoint has: "timm"."""
    network: str
    """Which of that library's networks it is: "swin"."""
    loaded: tuple[str, ...]
    """Our names of the weights that were read, those that were resampled among them."""
    resampled: tuple[Resampled, ...] = ()
    """Those of them that had to be made to fit."""
    initialized: tuple[str, ...] = ()
    """Our names of what the checkpoint does not have, and that stayed as it was: norms of outputs,
    and the head where a new one was asked for."""
    ignored: tuple[str, ...] = ()
    """The checkpoint's names of what was not used: buffers that can be worked out, other networks'
    weights, a head that the model does not have, stages after its last output; and what stands
    beside the weights, such as an optimizer's state."""
    dtypes: tuple[str, ...] = ()
    """The types of numbers that were read, where they are not the model's."""

    def __rich__(self) -> RenderableType:
        table = Table("what", "weights", "which", box=None, pad_edge=False)
        rows = {
            "loaded": self.loaded,
            "resampled": tuple(map(str, self.resampled)),
            "initialized": self.initialized,
            "ignored": self.ignored,
            "converted from": self.dtypes,
        }
        for what, names in rows.items():
            few = names if what != "loaded" else ()
            more = [f"... and {len(few) - SHOWN} more"] if len(few) > SHOWN else []
            shown = [ascii(name)[1:-1][:100] for name in few[:SHOWN]]
            if names:
                table.add_row(what, f"{len(names):,}", Text("\n".join([*shown, *more])))
        return Group(Text(f"layout: {self.layout}, {self.network}"), table)
