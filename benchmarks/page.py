"""Writes docs/performance.md from the results of `suite.py`: figures, commands and machine.

python benchmarks/page.py [benchmarks/results.json] [--out docs/performance.md]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from settings import SETTINGS, Goal

ROOT = Path(__file__).resolve().parents[1]
NOTES = ROOT / "benchmarks" / "notes.md"


def page(data: dict[str, Any]) -> str:
    """The page's text. Raises `ValueError` for the results of a quick run."""
    if data["quick"]:
        raise ValueError("a quick run: its figures mean nothing, and are not for a page")
    found = {setting["name"]: setting for setting in data["settings"]}
    parts = [
        "# Performance",
        f"Measured on {_machine(data)}. Weights are random. Every network is called once per "
        "round, in an order that rotates, and only when the threads of the one before are idle. "
        "A goal that is not reached is marked **no**. [Speed and memory](speed.md) says how a "
        "network runs; `hierarch bench SPEC --explain` says which way each of its modules takes, "
        "and what refused the faster ways.",
        "\n".join(_summary(found)),
    ]
    for setting in SETTINGS:
        if setting.name in found:
            parts += _section(setting.title, found[setting.name])
    parts.append(NOTES.read_text(encoding="utf-8").strip())
    if "profile" in data:
        parts += ["- `python benchmarks/operators.py`", data["profile"]]
    return "\n\n".join(parts) + "\n"


def _machine(data: dict[str, Any]) -> str:
    machine = data["machine"]
    reports = [r for setting in data["settings"] for r in setting.get("reports", [])]
    versions = sorted({f"torch {r['torch']}, {r['threads']} threads" for r in reports})
    known = [machine["cpu"], *versions, f"Python {machine['python']}", machine["system"]]
    return f"{'; '.join(known)}; {machine['date']}, commit {machine['commit']}"


def _summary(found: dict[str, Any]) -> list[str]:
    lines = ["| setting | figure | goal | measured | reached |", "| --- | --- | --- | --- | --- |"]
    for setting in SETTINGS:
        for goal in setting.goals if setting.name in found else ():
            reports = found[setting.name].get("reports")
            value = goal.figure(reports) if reports else None
            sign = "≥" if goal.at_least else "≤"
            cells = [setting.title, goal.what, f"{sign} {goal.limit:.2f}", *_verdict(goal, value)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _verdict(goal: Goal, value: float | None) -> tuple[str, str]:
    if value is None:
        return "not measured", "-"
    return f"{value:.3f}", "yes" if goal.holds(value) else "**no**"


def _section(title: str, found: dict[str, Any]) -> list[str]:
    # no fences: those are run as tests
    parts = [f"## {title}", "\n".join(f"- `{command}`" for command in found["commands"])]
    if "error" in found:
        return [*parts, f"Not measured: {found['error']}"]
    lines = [
        "| name | runs | setting | ms/image | spread | vs fastest peer | memory (MB) | GEMM |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for report in found["reports"]:
        for setting in report["settings"]:
            h, w = setting["size"]
            where = f"{setting['mode']}, {h}x{w}, batch {setting['batch']}, {setting['dtype']}"
            for row in setting["rows"]:
                memory = row["memory_bytes"] and row["memory_bytes"] / 1e6
                cells = [
                    row["name"],
                    row["execution"],
                    where,
                    f"{row['ms_per_image']:,.2f}",
                    _shown(row["spread"], ".1%"),
                    _shown(row["vs_fastest_peer"], ".3f"),
                    _shown(memory, ",.1f"),
                    _shown(row["gemm_share"], ".1%"),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    notes = dict.fromkeys(note for report in found["reports"] for note in report["notes"])
    return [*parts, "\n".join(lines), *notes]


def _shown(value: float | None, format: str) -> str:
    return "-" if value is None else f"{value:{format}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / "benchmarks" / "results.json"
    parser.add_argument("results", nargs="?", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    args = parser.parse_args()
    data = json.loads(args.results.read_text(encoding="utf-8"))
    try:
        text = page(data)
    except ValueError as error:
        parser.error(str(error))
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
