"""Boxes, arrows and texts on a blank page, in inches from its bottom left corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hierarch.plots.style import INK, PARTS, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
FONT = 7.5


@dataclass(frozen=True)
class Pen:
    """Draws on axes whose units are inches."""

    axes: Axes

    def text(
        self,
        place: Point,
        text: str,
        *,
        size: float = FONT,
        weight: Literal["normal", "bold"] = "normal",
        style: Literal["normal", "italic"] = "normal",
        ha: Literal["left", "center"] = "center",
        turned: bool = False,
    ) -> None:
        """A text whose middle, or whose left end, is at a place; `turned`, it reads from bottom to
        top."""
        self.axes.text(
            *place,
            text,
            fontsize=size,
            fontweight=weight,
            fontstyle=style,
            ha=ha,
            va="center",
            rotation=90 if turned else 0,
            color=INK,
            linespacing=1.25,
            zorder=4,
        )

    def box(
        self,
        corner: Point,
        width: float,
        height: float,
        text: str,
        *,
        part: str | None = None,
        turned: bool = False,
    ) -> None:
        """A box with a text in it, in the color of a part of the network; `turned`, it reads from
        bottom to top."""
        from matplotlib.colors import to_rgb
        from matplotlib.patches import FancyBboxPatch

        color = PARTS[part][0] if part else "#8a8a8a"
        light = [1 - 0.22 * (1 - value) for value in to_rgb(color)]
        x, y = corner
        patch = FancyBboxPatch(
            corner,
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=light,
            edgecolor=color,
            linewidth=1.1,
            zorder=3,
        )
        self.axes.add_patch(patch)
        self.text((x + width / 2, y + height / 2), text, turned=turned)

    def frame(self, corner: Point, width: float, height: float) -> None:
        """A dashed frame."""
        from matplotlib.patches import FancyBboxPatch

        patch = FancyBboxPatch(
            corner,
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="none",
            edgecolor="#999999",
            linestyle=(0, (4, 2)),
            linewidth=0.8,
        )
        self.axes.add_patch(patch)

    def arrow(self, *points: Point) -> None:
        """A line through some points, with a head at its end."""
        self.line(points[:-1])
        style = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "mutation_scale": 7}
        style |= {"shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", points[-1], xytext=points[-2], arrowprops=style)

    def line(self, points: Sequence[Point]) -> None:
        self.axes.plot(*zip(*points, strict=True), color=INK, linewidth=0.9)

    def sum(self, middle: Point, radius: float) -> None:
        """A circle with a plus in it."""
        from matplotlib.patches import Circle

        circle = Circle(middle, radius, facecolor="white", edgecolor=INK, linewidth=0.9)
        self.axes.add_patch(circle)
        (x, y), arm = middle, 0.6 * radius
        self.line([(x - arm, y), (x + arm, y)])
        self.line([(x, y - arm), (x, y + arm)])

    def block(
        self, middle: Point, *, height: float, width: float, depth: float, color: str
    ) -> None:
        """A cuboid that is `height` tall and `width` thick, whose third side, at an angle, adds
        `depth` to both."""
        from matplotlib.colors import to_rgba
        from matplotlib.patches import Polygon

        x, y = middle[0] - (width + depth) / 2, middle[1] - (height + depth) / 2
        front = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        top = [front[3], front[2], (x + width + depth, y + height + depth)]
        top += [(x + depth, y + height + depth)]
        right = [front[1], (x + width + depth, y + depth), top[2], front[2]]
        for side, opacity in ((front, 0.35), (top, 0.18), (right, 0.6)):
            face = Polygon(side, closed=True, facecolor=to_rgba(color, opacity), edgecolor=INK)
            face.set(linewidth=0.6, joinstyle="round")
            self.axes.add_patch(face)


def width_of(text: str) -> float:
    """The width of the longest line of a text in a box."""
    return max(text_width(line, FONT) for line in text.split("\n")) / 72
