"""Draws the pictures of plots.md that show a network without learned weights, by the commands of
that page: python docs/plotted.py [NAME...]

They are stored with 128 colors, so that they are small.
"""

import re
import shlex
import sys
import tempfile
from pathlib import Path

from PIL import Image

from hierarch.cli import app

DOCS = Path(__file__).resolve().parent
PAGE, STORED = DOCS / "plots.md", DOCS / "images" / "plots"
NAMES = ("architecture", "cost", "padding", "share", "shift", "windows")


def commands() -> dict[str, list[str]]:
    """The words of each command of the page, by the name of its file."""
    found = re.findall(r"^\$ hierarch (plot .* -o (\w+)\.png)$", PAGE.read_text("utf-8"), re.M)
    return {name: shlex.split(command) for command, name in found}


def draw(name: str) -> None:
    """Run a command of the page, and store its picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.png")
        app([*commands()[name][:-1], str(path)], standalone_mode=False)
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE)
    few.save(STORED / f"{name}.png", optimize=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        draw(wanted)
