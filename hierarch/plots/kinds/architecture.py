"""A network in one drawing, as papers have it: its maps, its stages, and what its blocks do."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hierarch.complexity.architecture import summary
from hierarch.plots.blocks import INPUT, Step, steps
from hierarch.plots.networks import Network, Size, spec_of
from hierarch.plots.pen import Pen, Point, width_of
from hierarch.plots.scene import scene
from hierarch.plots.style import BLUE, blank, caption, caption_height
from hierarch.report.tables import giga
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.claim import claim
from hierarch.spec.grid import Sides, checked_size, per_axis
from hierarch.spec.plan import BlockPlan, StagePlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN, GAP = 0.12, 0.2
"""Around the drawing, and the length of an arrow: in inches, as all lengths are."""
TALLEST, THICKEST, DEPTH = 0.95, 0.4, 0.3
"""The height of the largest map, the thickness of the one with the most channels, and how much of a
map's width is drawn, at an angle."""
NARROW, WIDE = 0.27, 0.7
"""The width of a box with a turned text, and of the box of a stage's blocks."""
LINE, RADIUS = 0.25, 0.075
"""The height of a box with a line of text, and the radius of a sum."""
ROW = 0.82
"""The height of what is drawn of one block."""
UNDER = 0.2
"""The further height of a block with a branch inside of another, which is drawn below the line."""
MOST = 6
"""Different blocks that are drawn, at most."""
LABELS = {"layer_scale": "layer scale", "residual_scale": "scale"}


@dataclass(frozen=True)
class Inside:
    """A block that differs from others in more than its width."""

    letter: str
    block: BlockPlan
    """The first one of its kind."""

    def label(self, name: str) -> tuple[str, str | None]:
        """What is written for a module of the block, and which part of a network it is."""
        block, base = self.block, name.rstrip("0123456789")
        if base == "mixer":
            return block.mixer.type, "mixer"
        if position := block.positions.get(name):
            return position.type, "position"
        if base == "norm":
            return block.norm.type, "norm"
        if base == "mlp":
            ratio = block.hidden_dim / block.dim
            return f"MLP ×{ratio:.3g}, {block.activation.type}", "mlp"
        return LABELS.get(base, name), None


def architecture(network: Network, *, size: Size = None) -> Figure:
    """Draw a network: the map of each stage with its grid and channels, each stage with its
    downsampling and blocks, and below, what is inside of each different block.

    It is generated from the plan of a spec or a model, and from what its blocks compute. `size` is
    the image's, by default the spec's. Raises `SpecError`.

    >>> texts = [text.get_text() for text in architecture("swin_tiny").axes[0].texts]
    >>> "stage 3" in texts, "7×7×768" in texts
    (True, True)
    """
    spec = spec_of(network)
    at = per_axis(spec.input_size) if size is None else checked_size(size)
    insides = different(spec)
    rows = [(inside, steps(inside.block)) for inside in insides.values()][:MOST]
    names = [opening(spec, stage) for stage in spec.plan()]
    side = max(map(width_of, [*names, ending(spec)])) + 0.14
    maps = TALLEST * (1 + DEPTH) + 0.3
    width = max(
        _columns(len(names)), *(_chain(inside, chain)[-1][1] for inside, chain in rows), 5.0
    )
    under = [UNDER * any(_is_inner(chain, *where) for where in _skips(chain)) for _, chain in rows]
    height = 2 * MARGIN + maps + side + 0.62 + ROW * len(rows) + sum(under)
    text = _caption(spec, at, hidden=len(insides) - len(rows))
    below = caption_height(width, text)
    figure = blank(width, height + below, placed=True)
    axes = figure.add_axes((0, below / (height + below), 1, height / (height + below)))
    pen = Pen(axes)
    _draw_maps(pen, spec, at, y=height - MARGIN - maps / 2 + 0.1)
    _draw_stages(pen, spec, names, insides, y=height - MARGIN - maps - side / 2 - 0.28, side=side)
    bottom = MARGIN
    for (inside, chain), more in zip(reversed(rows), reversed(under), strict=True):
        _draw_block(pen, inside, chain, y=bottom + more + LINE / 2 + 0.04)
        bottom += ROW + more
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    axes.axis("off")
    caption(figure, text)
    return figure


def different(spec: BackboneSpec) -> dict[tuple[object, ...], Inside]:
    """The blocks that differ in what is drawn of them, in their order in the network."""
    found: dict[tuple[object, ...], Inside] = {}
    for stage in spec.plan():
        for block in stage.blocks:
            again, letter = divmod(len(found), 26)
            name = string.ascii_lowercase[letter] + str(again or "")
            found.setdefault(_key(block), Inside(name, block))
    return found


def _key(block: BlockPlan) -> tuple[object, ...]:
    """What is drawn of a block."""
    ratio, scaled = block.hidden_dim / block.dim, block.layer_scale is not None
    parts = block.spec, block.norm, block.channel_mixer, block.activation
    return summary(block.mixer, omit=block.mixer.one_of), *parts, f"{ratio:.3g}", scaled


def pattern(letters: Sequence[str]) -> str:
    """A sequence of blocks in short: a b a b -> "a b ×2"; a b c a b -> "a b c … b"."""
    if not letters:
        return ""
    count = len(letters)
    for period in range(1, count + 1):
        if count % period == 0 and list(letters) == list(letters[:period]) * (count // period):
            break
    shown = list(letters[:period])
    if period > 4:  # a cycle that does not come to its end, or none
        cycle = next((n for n in (1, 2, 3) if letters[n:] == letters[: count - n]), 2)
        shown = [*shown[:cycle], "…", shown[-1]]
    times = count // period
    return " ".join(shown) + (f"\n×{times}" if times > 1 else "")


def opening(spec: BackboneSpec, stage: StagePlan) -> str:
    """What a stage begins with: the stem, its downsampling, or both."""
    first = [spec.stem.type] if stage.index == 0 else []
    if stage.index == 0 and spec.position_embedding:
        first.append("position")
    return " + ".join([*first, *([stage.downsample.type] if stage.downsample else [])])


def ending(spec: BackboneSpec) -> str:
    """The head, in short."""
    if spec.head is None:
        return ""
    return f"{spec.head.num_classes} classes" if spec.head.num_classes else "mean"


def _columns(stages: int) -> float:
    """The width of all stages beside each other."""
    return 2 * MARGIN + TALLEST + stages * _column() + 2 * GAP + NARROW


def _column() -> float:
    """From the start of a stage's first arrow to that of the next stage's."""
    return 2 * GAP + NARROW + WIDE + 0.16


def _middle(index: int) -> float:
    """The middle of a stage's frame."""
    return MARGIN + TALLEST + (index + 0.5) * _column() + GAP / 2


def _draw_maps(pen: Pen, spec: BackboneSpec, size: Sides, *, y: float) -> None:
    """The image, and the map of each stage, as large as its grid and as thick as its channels."""
    plan, grids = spec.plan(), [stage.grid for stage in claim(spec, size).stages]
    tall = TALLEST * min(1, size[0] / size[1])
    wide = tall * size[1] / size[0]
    left = MARGIN + (TALLEST - wide) / 2
    pen.axes.imshow(scene((128, 128)), extent=(left, left + wide, y - tall / 2, y + tall / 2))
    under = y - TALLEST * (1 + DEPTH) / 2 - 0.12
    pen.text((MARGIN + TALLEST / 2, under), f"{size[0]}×{size[1]} pixels")
    scale = TALLEST / max(grids[0])
    most = max(stage.dim for stage in plan)
    edge = MARGIN + TALLEST + 0.06
    for stage, grid in zip(plan, grids, strict=True):
        height, depth = scale * grid[0], scale * grid[1] * DEPTH
        thick = THICKEST * stage.dim / most
        x = _middle(stage.index)
        pen.block((x, y), height=height, width=thick, depth=depth, color=BLUE)
        pen.arrow((edge, y), (x - (thick + depth) / 2 - 0.06, y))
        edge = x + (thick + depth) / 2 + 0.06
        pen.text((x, under), f"{grid[0]}×{grid[1]}×{stage.dim}")


def _draw_stages(
    pen: Pen,
    spec: BackboneSpec,
    names: Sequence[str],
    insides: Mapping[tuple[object, ...], Inside],
    *,
    y: float,
    side: float,
) -> None:
    """Each stage: what it begins with, and its blocks in their order; then the head, or an arrow
    for each map that is returned."""
    bottom = y - side / 2
    pen.text((MARGIN + TALLEST / 2 - 0.05, y), "image")
    x = MARGIN + TALLEST / 2 + 0.16
    frame = NARROW + GAP + WIDE + 0.16
    for stage, name in zip(spec.plan(), names, strict=True):
        left = _middle(stage.index) - frame / 2
        pen.frame((left, bottom - 0.08), frame, side + 0.36)
        pen.text((left + frame / 2, bottom + side + 0.13), f"stage {stage.index}", weight="bold")
        start = left + 0.08
        if name:
            pen.arrow((x, y), (start, y))
            part = "stem" if stage.index == 0 else "downsampling"
            pen.box((start, bottom), NARROW, side, name, part=part, turned=True)
            x = start + NARROW
        start += NARROW + GAP
        pen.arrow((x, y), (start, y))
        letters = [insides[_key(block)].letter for block in stage.blocks]
        blocks = f"{stage.depth or 'no'} block{'s' * (stage.depth != 1)}"
        pen.box((start, bottom), WIDE, side, "", part="mixer")
        pen.text((start + WIDE / 2, y + 0.08), pattern(letters), size=10, weight="bold")
        pen.text((start + WIDE / 2, bottom + 0.14), blocks)
        x = start + WIDE
        if stage.index in spec.outputs:
            at = start + WIDE / 2
            pen.arrow((at, bottom), (at, bottom - 0.24))
            pen.text((at + 0.06, bottom - 0.17), "map", ha="left")
    if spec.head:
        start = x + 0.08 + 2 * GAP
        pen.arrow((x, y), (start, y))
        pen.box((start, bottom), NARROW, side, ending(spec), part="head", turned=True)


def _chain(inside: Inside, chain: Sequence[Step]) -> list[tuple[float, float]]:
    """Where each step of a block begins and ends, from left to right."""
    x = MARGIN + 0.3
    found = [(x, x)]
    for step in chain[1:]:
        x += GAP
        wide = 2 * RADIUS if _is_sum(step) else width_of(inside.label(step.name)[0]) + 0.16
        found.append((x, x + wide))
        x += wide
    return [*found, (x + GAP, x + GAP + 2 * MARGIN)]


def _is_sum(step: Step) -> bool:
    return step.name == "add" and not step.is_module


def _draw_block(pen: Pen, inside: Inside, chain: Sequence[Step], *, y: float) -> None:
    """The steps of a block from left to right, and above them what goes around."""
    mixer = inside.block.mixer
    told = summary(mixer, omit=mixer.one_of)
    above = y + LINE / 2 + 0.17
    pen.text((MARGIN, above + 0.17), inside.letter, size=10, weight="bold", ha="left")
    pen.text((MARGIN + 0.16, above + 0.17), f"{inside.block.spec.type}, {told}", ha="left")
    places = _chain(inside, chain)
    for i, (step, (left, right)) in enumerate(zip(chain, places, strict=False)):
        if step.name == INPUT:
            pen.text((left - 0.08, y), "x", style="italic")
            continue
        pen.arrow((places[i - 1][1], y), (left, y))
        if _is_sum(step):
            pen.sum(((left + right) / 2, y), RADIUS)
        else:
            text, part = inside.label(step.name)
            pen.box((left, y - LINE / 2), right - left, LINE, text, part=part)
        for skip in step.skips:
            start = places[skip.origin][1] + 0.4 * GAP
            end = (left + right) / 2
            side = -1 if _is_inner(chain, skip.origin, i) else 1
            level = y + side * (above - y)
            pen.arrow((start, y), (start, level), (end, level), (end, y + side * RADIUS))
            _draw_on(pen, inside, skip.modules, ((start + end) / 2, level))
    pen.arrow((places[-2][1], y), (places[-1][0], y))


def _skips(chain: Sequence[Step]) -> list[tuple[int, int]]:
    """Where each branch begins, and where it ends."""
    return [(skip.origin, i) for i, step in enumerate(chain) for skip in step.skips]


def _is_inner(chain: Sequence[Step], start: int, end: int) -> bool:
    """Whether a branch lies inside of another."""
    return any(
        first <= start and end <= last and (first, last) != (start, end)
        for first, last in _skips(chain)
    )


def _draw_on(pen: Pen, inside: Inside, modules: Sequence[str], middle: Point) -> None:
    """The modules on a branch, as a box on its middle."""
    if modules:
        text = ", ".join(inside.label(name)[0] for name in modules)
        wide = width_of(text) + 0.12
        corner = middle[0] - wide / 2, middle[1] - 0.09
        pen.box(corner, wide, 0.18, text)


def _caption(spec: BackboneSpec, size: Sides, *, hidden: int) -> str:
    claimed = giga(claim(spec, size).macs)
    more = f" {hidden} more kinds of blocks are left out." if hidden else ""
    return (
        f"{spec.name}, {claimed} G multiply-adds (MACs) for an image of {size[0]} × {size[1]} "
        "pixels. Above, the map of each stage: rows × columns × channels. In the middle, each "
        "stage: what it begins with, and its blocks in their order. Below, what these compute, "
        f"without what only matters in training (dropout, drop path).{more}"
    )
