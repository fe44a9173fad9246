"""Streams: images of many sizes, one after the other, against torchvision and timm.

    python benchmarks/stream.py [--threads 2] [--rounds 3] [--images 40] [--tiny-images 1000]

Inference in float32. Swin-T takes images with sides from 256 to 640, one at a time, and hierarch's
also as lists of eight; a tiny Swin takes many more sizes, from 40 to 130, for its memory. In the
first pass every size is new, in the second pass every size was seen. Times are over those of the
fastest peer in the same pass, memory over that of the peer with the least: what is resident above
the network at the end of a pass, each network in a process of its own. A figure is the median over
the rounds, which have new processes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

import hierarch
from hierarch.bench import benchmark_stream, random_sizes
from hierarch.bench.machine import processor
from hierarch.report import StreamReport, StreamRow, text

PEERS = ("torchvision:swin_t", "timm:swin_tiny_patch4_window7_224")
TOGETHER = 8
"""Images of a list."""
TINY = {"dim": 32, "depth": 2}, {"dim": 64, "depth": 2}
"""Stages of the tiny Swin."""
Figure = Callable[[StreamReport], float | None]


def timm_tiny() -> nn.Module:
    """The tiny Swin in timm, for images of every size."""
    from timm.models.swin_transformer import SwinTransformer

    model = SwinTransformer(
        img_size=128,
        embed_dim=TINY[0]["dim"],
        depths=tuple(stage["depth"] for stage in TINY),
        num_heads=(1, 2),
        strict_img_size=False,
    )
    model.patch_embed.dynamic_img_pad = True
    return model


def one_by_one(row: StreamRow) -> bool:
    return not row.is_peer and not row.together


def as_lists(row: StreamRow) -> bool:
    return not row.is_peer and bool(row.together)


def time(report: StreamReport, which: Callable[[StreamRow], bool], number: int) -> float | None:
    """The time of a pass over the fastest peer's."""
    [row] = filter(which, report.rows)
    return report.vs_fastest_peer(row, number)


def memory(report: StreamReport, which: Callable[[StreamRow], bool], number: int) -> float | None:
    """The memory at the end of a pass over the least of the peers'."""
    [row] = filter(which, report.rows)
    of_peers = [peer.memory(number) for peer in report.rows if peer.is_peer]
    own, least = row.memory(number), min((m for m in of_peers if m is not None), default=None)
    return None if own is None or not least else own / least


SWIN: list[tuple[str, float, Figure]] = [
    ("time, first pass", 0.85, partial(time, which=one_by_one, number=0)),
    ("time, second pass", 0.80, partial(time, which=one_by_one, number=1)),
    ("memory, after the first pass", 0.50, partial(memory, which=one_by_one, number=0)),
    ("memory, after the second pass", 0.50, partial(memory, which=one_by_one, number=1)),
    (f"time in lists of {TOGETHER}, first pass", 0.70, partial(time, which=as_lists, number=0)),
    (f"time in lists of {TOGETHER}, second pass", 0.70, partial(time, which=as_lists, number=1)),
]
MANY: list[tuple[str, float, Figure]] = [
    ("memory, after the first pass", 1.00, partial(memory, which=one_by_one, number=0)),
    ("memory, after the second pass", 1.00, partial(memory, which=one_by_one, number=1)),
]


def print_goals(
    setting: str, reports: Sequence[StreamReport], goals: Sequence[tuple[str, float, Figure]]
) -> None:
    print(text(reports[-1], "table"), file=sys.stderr)
    for figure, goal, measure in goals:
        found = [value for report in reports if (value := measure(report)) is not None]
        value = statistics.median(found) if found else None
        shown = "not measured" if value is None else f"{value:.3f}"
        reached = "-" if value is None else "yes" if value <= goal else "**no**"
        print(f"| {setting} | {figure} | ≤ {goal:.2f} | {shown} | {reached} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--tiny-images", type=int, default=1000)
    options = parser.parse_args()
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}\n")
    print("| setting | figure | goal | measured | reached |\n| --- | --- | --- | --- | --- |")
    sizes = random_sizes(options.images, 256, 640)
    reports = [
        benchmark_stream(["swin_tiny"], sizes, vs=PEERS, lists=TOGETHER, threads=options.threads)
        for _ in range(options.rounds)
    ]
    print_goals(f"Swin-T, {len(sizes)} images of 256 to 640", reports, SWIN)
    spec = hierarch.load("swin_tiny").to_data() | {"name": "tiny", "stages": list(TINY)}
    sizes = random_sizes(options.tiny_images, 40, 130)
    peer = f"{__file__}:{timm_tiny.__name__}"
    report = benchmark_stream([spec], sizes, vs=[peer], threads=options.threads)
    print_goals(f"a tiny Swin, {len(sizes)} images of 40 to 130", [report], MANY)


if __name__ == "__main__":
    main()
