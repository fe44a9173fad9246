"""The settings of the benchmark suite: their commands and their goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Reports = list[dict[str, Any]]

SWIN_T = "--vs timm:swin_tiny_patch4_window7_224 --vs torchvision:swin_t --vs transformers:swin"
SWIN_B = "--vs timm:swin_base_patch4_window7_224 --vs torchvision:swin_b"
RUNTIMES = "--vs onnxruntime:torchvision:swin_t --vs openvino:torchvision:swin_t"
CONV1D = "--vs benchmarks/swin_mlp_conv1d.py:swin_mlp_tiny_c24"
QUICK = "--rounds 2 --gemm 128 --batch 1"


@dataclass(frozen=True)
class Goal:
    """A figure and its limit: an upper one, or a lower one if `at_least`."""

    what: str
    limit: float
    figure: Callable[[Reports], float | None]
    """Computes the figure from the reports of the setting's commands: the worst of several."""
    at_least: bool = False

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Setting:
    name: str
    title: str
    commands: tuple[str, ...]
    goals: tuple[Goal, ...]
    quick: str
    """A command of the same kind that takes only seconds."""


def groups(reports: Reports, execution: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """The rows of specs with this `execution`, each with its setting."""
    for report in reports:
        for setting in report["settings"]:
            for row in setting["rows"]:
                if not row["is_peer"] and row["execution"] == execution:
                    yield row, setting


def worst(values: Iterator[float | None], pick: Callable[..., float] = max) -> float | None:
    """The worst value; None if any of them was not measured."""
    every = list(values)
    measured = [value for value in every if value is not None]
    return pick(measured) if measured and len(measured) == len(every) else None


def time_ratio(execution: str = "eager") -> Callable[[Reports], float | None]:
    """Our time over that of the fastest peer."""
    return lambda reports: worst(row["vs_fastest_peer"] for row, _ in groups(reports, execution))


def fastest(
    reports: Reports, figure: str, pick: Callable[..., float], over: Callable[..., float]
) -> float | None:
    """The best (`pick`) of our eager, packed and compiled figures in each setting, and the worst
    (`over`) of the settings."""

    def one(rows: list[dict[str, Any]]) -> float | None:
        ways = ("eager", "packed", "compiled")
        ours = (r[figure] for r in rows if not r["is_peer"] and r["execution"] in ways)
        return worst(ours, pick)

    settings = (setting for report in reports for setting in report["settings"])
    return worst((one(setting["rows"]) for setting in settings), over)


def fastest_ratio(reports: Reports) -> float | None:
    return fastest(reports, "vs_fastest_peer", min, over=max)


def memory_ratio(reports: Reports) -> float | None:
    """Memory over that of the peer that takes least."""

    def one(row: dict[str, Any], setting: dict[str, Any]) -> float | None:
        peers = [r["memory_bytes"] for r in setting["rows"] if r["is_peer"]]
        if row["memory_bytes"] is None or not peers or None in peers or not min(peers):
            return None
        return float(row["memory_bytes"] / min(peers))

    return worst(one(row, setting) for row, setting in groups(reports, "eager"))


def gemm_share(reports: Reports) -> float | None:
    return fastest(reports, "gemm_share", max, over=min)


def growth(reports: Reports) -> float | None:
    """The most that a token takes at any size, over what it takes at the smallest."""
    per_token = []
    for row, setting in groups(reports, "eager"):
        area = setting["size"][0] * setting["size"][1]
        per_token.append((area, statistics.median(row["seconds"]) / setting["batch"] / area))
    if len(per_token) < 2:
        return None
    return max(time for _, time in per_token) / min(per_token)[1]


def faster(limit: float, execution: str = "eager") -> Goal:
    return Goal("time / fastest peer", limit, time_ratio(execution))


def faster_eager(limit: float) -> tuple[Goal, Goal]:
    """As a spec runs by itself, and with `pack_weights`, which peers have nothing like."""
    packed = Goal("time, weights packed / fastest peer", limit, time_ratio("packed"))
    return faster(limit), packed


def smaller(limit: float) -> Goal:
    return Goal("memory / least of the peers", limit, memory_ratio)


SETTINGS = (
    Setting(
        "forward-batch8",
        "Swin-T, forward, 224², batch 8",
        (f"hierarch bench swin_tiny {SWIN_T} --sizes 224 --batch 8 --pack --no-memory",),
        faster_eager(0.80),
        f"hierarch bench swin_tiny {SWIN_T} --sizes 224 --pack --no-memory {QUICK}",
    ),
    Setting(
        "forward-batch1",
        "Swin-T and Swin-B, forward, 224², batch 1",
        (
            f"hierarch bench swin_tiny {SWIN_T} --sizes 224 --batch 1 --rounds 30 --pack "
            "--no-memory",
            f"hierarch bench swin_base {SWIN_B} --sizes 224 --batch 1 --rounds 20 --pack "
            "--no-memory",
        ),
        faster_eager(0.90),
        f"hierarch bench swin_base --vs torchvision:swin_b --sizes 64 --pack --no-memory {QUICK}",
    ),
    Setting(
        "forward-1120",
        "Swin-T, forward, 1120², batch 1",
        (f"hierarch bench swin_tiny {SWIN_T} --sizes 1120 --batch 1 --pack",),
        (*faster_eager(0.70), smaller(0.25)),
        f"hierarch bench swin_tiny --vs torchvision:swin_t --sizes 224 --pack {QUICK}",
    ),
    Setting(
        "forward-1120-bfloat16",
        "Swin-T, forward, 1120², batch 1, bfloat16",
        (
            f"hierarch bench swin_tiny {SWIN_T} --sizes 1120 --batch 1 --dtype bfloat16 --pack "
            "--no-memory",
        ),
        faster_eager(0.70),
        "hierarch bench swin_tiny --vs torchvision:swin_t --sizes 64 --dtype bfloat16 "
        f"--pack --no-memory {QUICK}",
    ),
    Setting(
        "training-batch8",
        "Swin-T, training step, 224², batch 8",
        (f"hierarch bench swin_tiny {SWIN_T} --sizes 224 --batch 8 --mode training",),
        (faster(0.85), smaller(0.75)),
        "hierarch bench swin_tiny --vs torchvision:swin_t --sizes 64 --mode training "
        f"{QUICK.replace('--batch 1', '--batch 2')}",
    ),
    Setting(
        "compiled",
        "Swin-T, compiled with frozen weights, forward, 224², batch 8",
        (f"hierarch bench swin_tiny {SWIN_T} --sizes 224 --batch 8 --compile --no-memory",),
        (faster(0.90, "compiled"),),
        "hierarch bench swin_tiny --vs torchvision:swin_t --sizes 64 --compile --no-memory "
        f"--set stages.2.depth=2 {QUICK}",
    ),
    Setting(
        "compiled-training",
        "Swin-T, compiled, training step, 224², batch 8",
        (
            f"hierarch bench swin_tiny {SWIN_T} --sizes 224 --batch 8 --mode training --compile "
            "--no-memory",
        ),
        (faster(1.00, "compiled"),),
        "hierarch bench swin_tiny --vs torchvision:swin_t --sizes 64 --mode training --compile "
        f"--no-memory --set stages.2.depth=2 {QUICK.replace('--batch 1', '--batch 2')}",
    ),
    Setting(
        "runtimes",
        "Swin-T against ONNX Runtime and OpenVINO, forward, 224², batch 1 and 8",
        (
            f"hierarch bench swin_tiny {RUNTIMES} --sizes 224 --batch 1,8 --pack --compile "
            "--no-memory",
        ),
        (Goal("time / fastest peer", 0.95, fastest_ratio),),
        f"hierarch bench swin_tiny {RUNTIMES} --sizes 64 --pack --no-memory {QUICK}",
    ),
    Setting(
        "swin-mixer",
        "Swin-Mixer-T/D24 against the published grouped convolution, 256², batch 8",
        (
            f"hierarch bench swin_mixer_tiny_d24 {CONV1D} --sizes 256 --batch 8 "
            "--mode forward,training --no-memory",
        ),
        (faster(0.80),),
        f"hierarch bench swin_mixer_tiny_d24 {CONV1D} --sizes 256 --mode forward,training "
        f"--no-memory {QUICK}",
    ),
    Setting(
        "gemm-share",
        "Swin-T's share of the GEMM limit, forward, 224², batch 8",
        ("hierarch bench swin_tiny --sizes 224 --batch 8 --pack --no-memory",),
        (Goal("share of the GEMM limit", 0.85, gemm_share, at_least=True),),
        f"hierarch bench swin_tiny --sizes 64 --pack --no-memory {QUICK}",
    ),
    Setting(
        "growth",
        "Swin-T, time per token from 448² to 2240²",
        ("hierarch bench swin_tiny --sizes 448,896,1344,1792,2240 --batch 1 --gemm 0 --no-memory",),
        (Goal("most / at the smallest", 1.10, growth),),
        "hierarch bench swin_tiny --sizes 64,128 --rounds 2 --batch 1 --gemm 0 --no-memory",
    ),
)
