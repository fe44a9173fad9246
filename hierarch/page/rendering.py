"""A page's content as HTML: the template, style and script beside this file, in one text.

Whatever a spec or a file says is text: the template escapes it, and the page's policy lets no
script run but its own, and nothing be loaded.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import YamlLexer

from hierarch import __version__
from hierarch.page.content import Content, Network
from hierarch.page.cuts import BlockCut
from hierarch.report.formats import Block, Line, Paragraph, Table, Title
from hierarch.report.tables import Row, giga, holds_numbers, shown_size

FOLDER = Path(__file__).parent


def html(content: Content) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"yaml": yaml, "giga": giga, "size": shown_size}
    environment.globals |= {
        "numeric": holds_numbers,
        "windows": windows,
        "block_table": block_table,
    }
    for block in (Line, Paragraph, Table, Title):
        environment.tests[block.__name__.lower()] = lambda value, cls=block: isinstance(value, cls)
    style, script = ((FOLDER / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        content=content,
        title=", ".join(network.name for network in content.networks),
        sections=sections(content),
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        policy="; ".join(
            (
                "default-src 'none'",
                "img-src data:",
                f"style-src {digest(style)}",
                f"script-src {digest(script)}",
            )
        ),
    )


def digest(text: str) -> str:
    """What a content security policy calls an inline script or style of this text."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def yaml(text: str) -> Markup:
    """YAML with a span around each key and value, escaped."""
    return Markup(highlight(text, YamlLexer(), HtmlFormatter(nowrap=True)))


def windows(network: Network) -> dict[str, Any]:
    """What the page's script draws: the blocks, and each cut that some of them share."""
    cuts = list(dict.fromkeys(block.cut for block in network.blocks if block.cut))
    return {
        "image": network.size,
        "cuts": list(map(asdict, cuts)),
        "blocks": [
            {
                **{name: value for name, value in vars(block).items() if name != "cut"},
                "cut": cuts.index(block.cut) if block.cut else None,
            }
            for block in network.blocks
        ],
    }


def sections(content: Content) -> list[tuple[str, str]]:
    """What the page's navigation lists: where it leads to, and its name."""
    names = [(f"network-{i}", network.name) for i, network in enumerate(content.networks, 1)]
    if content.comparison is None:
        ids = ("architecture-1", "cost-1", "windows-of-1", "spec-1")
        names = list(zip(ids, ("Architecture", "Cost", "Windows", "Spec"), strict=True))
    else:
        names.insert(0, ("comparison", "Comparison"))
    found = [(f"finding-{i}", one.title) for i, one in enumerate(content.findings, 1)]
    return [*names, *found]


def block_table(network: Network) -> list[Block]:
    """A row per block: the same as the pictures, in numbers."""
    return [Table([_row(block) for block in network.blocks])]


def _row(block: BlockCut) -> Row:
    row = {
        "stage": str(block.stage),
        "block": str(block.block),
        "mixer": block.mixer,
        "grid": shown_size(block.grid),
    }
    if block.cut is None:
        return row | dict.fromkeys(("window", "windows", "masked", "empty slots"), "-")
    heights, widths = block.cut.axes
    slots = heights.count * heights.window * widths.count * widths.window
    return row | {
        "window": shown_size((heights.window, widths.window)),
        "windows": f"{heights.count * widths.count:,}",
        "masked": f"{sum(kind.count for kind in block.cut.kinds if kind.masked):,}",
        "empty slots": f"{slots - block.grid[0] * block.grid[1]:,}",
    }
