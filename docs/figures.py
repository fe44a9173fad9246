"""Writes the generated parts of README and docs.

python docs/figures.py              write what is stale of published.md, comparison.md and the
                                    table of families.md (which need timm and torchvision),
                                    images/flops.svg, the tables of spec.md, training.md and
                                    experiments.md, and what the explainer has of the library
python docs/figures.py --check      exit with status 1 if one of them is stale; differences from
                                    timm, which the tests bound, are not measured again
python docs/figures.py --console    also write the outputs of the commands in README and docs
"""

import argparse
import csv
import io
import re
import sys
from pathlib import Path

import comparison
import explainer_tables
import families
import fences
import fields
from rich.console import Console
from rich.text import Text

import hierarch

DOCS = Path(__file__).resolve().parent
PICTURED = "hierarch flops swin_tiny ablations/swin_tiny_global_attention --sizes 224,448,896"
WIDTH = 104

INTRODUCTION = """\
# Published, counted, claimed

The published models, each at its nominal image size and with its 1000-class head. *Published* is
from the authors' code and paper ([published.csv](published.csv)): the exact number of parameters,
and GMACs, which the paper calls FLOPs, with the digits it prints. *Counted* is fvcore's count in a
trace of the built network. *Claimed* is the sum of the parts' formulas. See
[complexity](complexity.md).

This page is written by `python docs/figures.py`.

"""

NOTE = """

Counted and claimed are equal. Both are a little above the published figures, since fvcore counts 5
per element of a norm, and the authors 1; the rest is rounding.
"""


def published() -> str:
    """The text of published.md."""
    rows = []
    with (DOCS / "published.csv").open(encoding="utf-8") as file:
        for model in csv.DictReader(file):
            spec = hierarch.load(model["name"])
            report = hierarch.measure(spec, sizes=[spec.input_size])
            [cost] = report.sizes
            rows.append(
                {
                    "preset": f"`{spec.name}`",
                    "image": "×".join(map(str, cost.size)),
                    "parameters published": f"{int(model['params']):,}",
                    "counted": f"{report.params:,}",
                    "GMACs published": model["gmacs"],
                    "MACs counted": f"{cost.macs:,}",
                    "MACs claimed": f"{cost.claimed_macs:,}",
                    "counted over published": f"{cost.macs / float(model['gmacs']) / 1e9 - 1:+.2%}",
                }
            )
    rule = dict.fromkeys(rows[0], "--:") | {"preset": ":--"}
    lines = [rows[0].keys(), rule.values(), *(row.values() for row in rows)]
    return INTRODUCTION + "\n".join(f"| {' | '.join(line)} |" for line in lines) + NOTE


def picture() -> str:
    """An SVG of a terminal that shows a command and its output."""
    with fences.workplace():
        printed = fences.run(
            PICTURED, FORCE_COLOR="1", TERM="xterm-256color", COLUMNS=str(WIDTH), COLORTERM=""
        )
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {PICTURED}", style="bold"))
    console.print(Text.from_ansi(printed.rstrip()))
    drawing = console.export_svg(title="hierarch flops", unique_id="flops")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL)  # fonts of another site


def words(text: str) -> list[str]:
    """The lines of a file; of an SVG its texts, since the drawing depends on rich's version."""
    is_svg = text.startswith("<svg")
    return re.findall(r">([^<>]+)</text>", text) if is_svg else text.splitlines()


def stale(made: dict[Path, str]) -> list[Path]:
    """The files whose contents differ from what they should be now."""
    now = {path: words(path.read_text("utf-8")) for path in made if path.is_file()}
    return [path for path, text in made.items() if now.get(path) != words(text)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="list what is stale; write nothing")
    parser.add_argument("--console", action="store_true", help="refresh commands' outputs too")
    options = parser.parse_args(arguments)
    made = {
        DOCS / "published.md": published(),
        comparison.PAGE: comparison.page(),
        families.PAGE: families.filled(
            families.PAGE.read_text("utf-8"), measures=not options.check
        ),
        DOCS / "images" / "flops.svg": picture(),
        explainer_tables.SCRIPT: explainer_tables.text(),
        **{page: fields.filled(page.read_text("utf-8")) for page in fields.PAGES},
    }
    out_of_date = stale(made)
    for path in out_of_date:
        print(f"{path.relative_to(DOCS.parent)} {'is stale' if options.check else 'written'}")
        if not options.check:
            path.write_text(made[path], encoding="utf-8")
    if options.check:
        return 1 if out_of_date else 0
    if options.console:
        for path in [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]:
            path.write_text(fences.refreshed(path.read_text("utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
