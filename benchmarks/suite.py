"""Runs the settings of `settings.py`, each a `hierarch bench` command, and writes JSON.

    python benchmarks/suite.py [--quick] [--only NAME] [--out benchmarks/results.json]

Run it on an idle machine. `page.py` prints each setting's goals beside the measured figures.
--quick runs a short version of every command, to check that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from settings import SETTINGS, Setting

ROOT = Path(__file__).resolve().parents[1]


def run(command: str) -> dict[str, Any]:
    """The JSON report of a `hierarch bench` command. Raises `RuntimeError` if it fails."""
    words = shlex.split(command)
    assert words[:2] == ["hierarch", "bench"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", *words, "--format", "json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"status {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def machine() -> dict[str, Any]:
    from hierarch.bench.machine import processor

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8")
        return done.stdout.strip()

    return {
        "cpu": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s") else ""),
    }


def profile() -> str:
    """The table of `operators.py`."""
    script = [sys.executable, str(ROOT / "benchmarks" / "operators.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        script, env=env, stdout=subprocess.PIPE, encoding="utf-8", check=True
    ).stdout.strip()


def result(setting: Setting, quick: bool) -> dict[str, Any]:
    commands = [setting.quick] if quick else setting.commands
    here: dict[str, Any] = {"name": setting.name, "commands": list(commands)}
    try:
        here["reports"] = [run(command) for command in commands]
    except RuntimeError as error:
        here["error"] = str(error)
    return here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    parser.add_argument("--only", choices=[s.name for s in SETTINGS], action="append")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results.json")
    args = parser.parse_args()
    chosen = [s for s in SETTINGS if not args.only or s.name in args.only]
    data: dict[str, Any] = {"quick": args.quick, "machine": machine(), "settings": []}
    for setting in chosen:
        print(f"{setting.name} ...", file=sys.stderr, flush=True)
        data["settings"].append(found := result(setting, args.quick))
        if "error" in found:
            print(f"  {found['error']}", file=sys.stderr)
        # after each setting, so that no result is lost if a later one fails
        args.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if not (args.quick or args.only):
        data["profile"] = profile()
        args.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    sys.exit(any("error" in found for found in data["settings"]))


if __name__ == "__main__":
    main()
