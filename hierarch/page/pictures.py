"""matplotlib's figures as SVG that a page holds in itself, and the curves of a training run."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hierarch.plots.style import (
    BLUE,
    FAINT,
    PURPLE,
    SMALL,
    VERMILLION,
    blank,
    caption,
    caption_of,
    encoded,
    quiet,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = {
    "loss": ("loss in training", VERMILLION, "-"),
    "val_loss": ("loss, held out", PURPLE, "--"),
    "val_top1": ("top-1 (%), held out", BLUE, "-"),
}
"""Columns of metrics.csv: what they are, and how they are drawn."""
FEW = 40
"""Points that are marked each."""


@dataclass(frozen=True)
class Picture:
    """A drawing, and in words what it shows."""

    svg: bytes
    caption: str

    @property
    def address(self) -> str:
        """The drawing as the address of an image: so it runs no script, its names are its own, and
        nothing is loaded for it."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg).decode()}"


def picture(figure: Figure) -> Picture:
    """A figure as SVG, with its caption apart."""
    said = caption_of(figure)
    figure.supxlabel("")
    return Picture(encoded(figure, "svg", transparent=True, cropped=True), said)


def curves(name: str, rows: Sequence[Mapping[str, str]]) -> Figure:
    """Draw loss and accuracy of a run by step, from the rows of its metrics.csv."""
    figure = blank(9, 3.2)
    for axes, columns in zip(
        figure.subplots(1, 2), (("loss", "val_loss"), ("val_top1",)), strict=True
    ):
        for column in columns:
            points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
            label, color, line = SERIES[column]
            axes.plot(
                [step for step, _ in points],
                [100 * value if column == "val_top1" else value for _, value in points],
                color=color,
                linestyle=line,
                label=label,
                marker="o" if len(points) < FEW else "",
                markersize=3,
            )
        axes.set_xlabel("step", fontsize=SMALL)
        axes.grid(color=FAINT, linewidth=0.5)
        axes.legend(frameon=False, fontsize=SMALL)
        quiet(axes)
    caption(figure, f"Loss and accuracy of {name} by step, as metrics.csv has them.")
    return figure
