"""What all plots share: a blank figure with a caption, colors, and files.

Colors are Okabe and Ito's (2008), which the color-blind can tell apart. Wherever a color has a
meaning, a marker, a line style or a hatch has the same one, so that a gray print has it, too.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.errors import PlotError
from hierarch.files import writing
from hierarch.needs import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN = "#000000", "#e69f00", "#56b4e9", "#009e73"
YELLOW, BLUE, VERMILLION, PURPLE = "#f0e442", "#0072b2", "#d55e00", "#cc79a7"
INK, GRAY, FAINT = "#333333", "#595959", "#dddddd"
"""Text; what matters less; lines behind the data."""
MARK = BLUE
"""What is marked on a picture."""
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
"""For series, in this order; dark ones first. `MARKERS`, `LINES` and `HATCHES` go with them."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = (
    *("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5))),
    *((0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (2, 2)), (0, (1, 3))),
)
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "||||", "++++")
PARTS = {
    "stem": (SKY, "...."),
    "downsampling": (PURPLE, "xxxx"),
    "position": (YELLOW, "\\\\\\\\"),
    "norm": (GREEN, "||||"),
    "mixer": (BLUE, ""),
    "mlp": (ORANGE, "////"),
    "head": (VERMILLION, "----"),
}
"""The color and the hatch of each part of a network."""
SMALL = 8
"""Points of a caption."""
WIDER = 1.04
"""Text in few dots an inch is up to so much wider than its outlines."""

NO_BREAK = "\u00a0"
SUFFIXES = (".png", ".svg", ".pdf")
_UNDATED: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def blank(width: float, height: float, *, placed: bool = False) -> Figure:
    """An empty figure of this size in inches, apart from pyplot and its global state. It lays out
    its axes, unless they are `placed` by hand. Raises `MissingPackageError` without matplotlib.

    >>> blank(4, 3).get_size_inches().tolist()
    [4.0, 3.0]
    """
    require("matplotlib", extra="plot")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=None if placed else "constrained")


def caption(figure: Figure, text: str) -> None:
    """Text below all that says what the figure shows, in lines as long as the figure is wide.

    >>> figure = blank(4, 3)
    >>> caption(figure, "What this shows.")
    >>> caption_of(figure)
    'What this shows.'
    """
    lines = wrapped(text, figure.get_figwidth() * 72 - 12, SMALL)
    figure.supxlabel(
        "\n".join(lines),
        fontsize=SMALL,
        color=INK,
        x=6 / 72 / figure.get_figwidth(),
        ha="left",
        parse_math=False,
    )


def caption_height(width: float, text: str) -> float:
    """Inches that a caption takes of a figure of this width."""
    return 0.12 + 0.16 * len(wrapped(text, width * 72 - 12, SMALL))


def caption_of(figure: Figure) -> str:
    """A figure's caption, in one line."""
    return figure.get_supxlabel().replace("\n", " ").replace(NO_BREAK, " ")


def wrapped(text: str, width: float, fontsize: float) -> list[str]:
    """The lines of a text that is at most `width` points wide; a longer word is a line."""
    lines = [""]
    for word in text.replace(" × ", f"{NO_BREAK}×{NO_BREAK}").split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if WIDER * text_width(longer, fontsize) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def text_width(text: str, fontsize: float, *, weight: str = "normal") -> float:
    """The width of a line in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=fontsize, weight=weight)
    found: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return found


def numbered(names: Sequence[str]) -> list[str]:
    """Names, of which those that are not alone get a number."""
    counts = Counter(names)
    return [f"{name} #{i}" if counts[name] > 1 else name for i, name in enumerate(names, 1)]


def quiet(axes: Axes) -> None:
    """Takes away the frame's top and right, and puts what is left behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def bare(axes: Axes) -> None:
    """Takes away the numbers beside a picture, and gives it a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color="#bbbbbb", linewidth=0.6)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as .png, .svg or .pdf, whole or not at all.

    The same figure gives the same bytes: no file has a date. Raises `PlotError` for another suffix,
    or where the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(blank(2, 1), Path(folder, "it.svg"))
    ...     [path.name for path in Path(folder).iterdir()]
    ['it.svg']
    """
    target = Path(path)
    drawn = encoded(figure, checked_suffix(target))
    try:
        with writing(target) as temporary:
            temporary.write_bytes(drawn)
    except OSError as error:
        raise PlotError(f"{target}: cannot be written: {error.strerror}") from None


def checked_suffix(path: Path) -> str:
    """The format that a file's suffix names: png, svg or pdf. Raises `PlotError` for another."""
    if path.suffix.lower() not in SUFFIXES:
        raise PlotError(f"{path}: a plot is written as {', '.join(SUFFIXES)}")
    return path.suffix.lower().removeprefix(".")


def encoded(
    figure: Figure, format: str, *, transparent: bool = False, cropped: bool = False
) -> bytes:
    """The bytes of a figure's file in png, svg or pdf; `cropped` to what is drawn. The same figure
    gives the same bytes."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "hierarch"}):
        figure.savefig(
            stream,
            format=format,
            dpi=200,
            transparent=transparent,
            bbox_inches="tight" if cropped else None,
            metadata=_UNDATED[format],
        )
    return stream.getvalue()
