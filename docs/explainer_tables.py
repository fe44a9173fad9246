"""What the explainer takes from the library: presets, Swin-T's blocks, and a measured result.

`python docs/figures.py` writes it to _extra/explainer/tables.js.
"""

import json
from pathlib import Path
from typing import Any

import hierarch
from hierarch.nn.cut import Cut, Kind, kinds, kinds_by_axis
from hierarch.nn.window_mixer import shift_mask
from hierarch.spec.claim import claim
from hierarch.spec.grid import Sides, per_axis
from hierarch.spec.plan import StagePlan
from hierarch.spec.registry import get

DOCS = Path(__file__).resolve().parent
SCRIPT = DOCS / "_extra" / "explainer" / "tables.js"
RESULTS = DOCS / "results" / "shifting" / "results.json"
SWIN = "swin_tiny"
PRESETS = [
    ("small: 12 × 12", (12, 12), 4, 2, 96),
    ("as in the paper: 8 × 8", (8, 8), 4, 2, 96),
    ("Swin-T, stage 1: 56 × 56", (56, 56), 7, 3, 96),
    ("Swin-T, stage 3: 14 × 14", (14, 14), 7, 3, 384),
    ("Swin-T, stage 4: 7 × 7", (7, 7), 7, 3, 768),
    ("with padding: 15 × 19", (15, 19), 4, 2, 96),
    ("wide and low: 6 × 24", (6, 24), 6, 3, 96),
    ("a shift of 1: 12 × 12", (12, 12), 4, 1, 96),
    ("no shift: 12 × 12", (12, 12), 4, 0, 96),
]
"""Name, grid, window, shift and channels of what the page offers to look at."""
NAMES: dict[Kind, str] = {
    (False,) * 2: "inner",
    (False, True): "right",
    (True, False): "bottom",
    (True,) * 2: "corner",
}
"""The page's names for kinds of windows."""


def text() -> str:
    """The text of tables.js."""
    tables = {"presets": presets(), "swin": swin(), "results": results()}
    parts = "".join(f"  {name}: {_lines(rows)},\n" for name, rows in tables.items())
    head = "/* Written by docs/figures.py, from the library. Do not edit. */\n"
    return f'{head}"use strict";\n\nconst Tables = {{\n{parts}}};\n'


def _lines(rows: list[dict[str, Any]]) -> str:
    return "[\n" + "".join(f"    {json.dumps(row, ensure_ascii=False)},\n" for row in rows) + "  ]"


def presets() -> list[dict[str, Any]]:
    """What the page offers to look at, with the windows, masks and costs that the library has."""
    rows = []
    for name, grid, window, shift, dim in PRESETS:
        setting = {"grid": grid, "window": per_axis(window), "shift": per_axis(shift), "dim": dim}
        rows.append(
            {"name": name, **setting, **facts(grid, per_axis(window), per_axis(shift), dim)}
        )
    return rows


def facts(grid: Sides, window: Sides, shift: Sides, dim: int) -> dict[str, Any]:
    """How the library's attention cuts a grid, what it masks there, and what that costs."""
    mixer = get("mixer", "window_attention")(window_size=window, shift_size=shift, num_heads=1)
    control = get("mixer", "global_attention")(num_heads=1)
    cut = mixer.build(dim).cut(grid)
    macs = {"windows": mixer.macs(dim=dim, grid=grid), "all": control.macs(dim=dim, grid=grid)}
    return {"windows": cut.count, "kinds": counts(cut), "masked": masked(cut), "macs": macs}


def counts(cut: Cut) -> dict[str, int]:
    """How many windows of each kind a cut has."""
    return {NAMES[kind]: number for kind, number in cut.runs(1) if number}


def masked(cut: Cut) -> dict[str, int]:
    """How many pairs the mask of each kind keeps apart."""
    masks = shift_mask(kinds_by_axis(cut.shift), cut.window, cut.shift)
    pairs = {NAMES[kind]: mask for kind, mask in zip(kinds(cut.shift), masks, strict=True)}
    return {kind: int(pairs[kind].count_nonzero()) for kind in counts(cut)}


def edges(cut: Cut) -> int:
    """The number of windows whose mask keeps something apart."""
    apart = masked(cut)
    return sum(number for kind, number in counts(cut).items() if apart[kind])


def swin() -> list[dict[str, Any]]:
    """The blocks of Swin-T at its nominal size, stage by stage."""
    spec = hierarch.load(SWIN)
    costs = claim(spec, per_axis(spec.input_size)).stages
    return [_stage(stage, cost.grid) for stage, cost in zip(spec.plan(), costs, strict=True)]


def _stage(stage: StagePlan, grid: Sides) -> dict[str, Any]:
    cuts = [mixer.build(stage.dim).cut(grid) for mixer in stage.mixers]
    blocks = [{"shift": cut.shift, "masked": edges(cut)} for cut in cuts]
    return {"grid": grid, "counts": [axis.count for axis in cuts[0].axes], "blocks": blocks}


def results() -> list[dict[str, Any]]:
    """What shifting and its mask are worth: the networks of docs/results.md, as measured."""
    measured = json.loads(RESULTS.read_text("utf-8"))
    spec = hierarch.loads(json.dumps(measured["grid"]["base"]))
    stage, cost = spec.plan()[0], claim(spec, per_axis(spec.input_size)).stages[0]
    shifted = stage.mixers[-1].build(stage.dim).cut(cost.grid)
    first = {"windows": shifted.count, "edges": edges(shifted)}
    return [{"name": arm["name"], **first, **_measured(arm)} for arm in measured["arms"]]


def _measured(arm: dict[str, Any]) -> dict[str, Any]:
    """Top-1 in percent, and the difference from the reference, each with its interval."""
    found = {"top1": arm["top1"], "difference": arm["against_reference"]}
    return {
        name: {key: round(100 * value[key], 2) for key in ("mean", "low", "high")}
        for name, value in found.items()
        if value
    }
