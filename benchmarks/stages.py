"""Where the time of a single image goes: Swin-T's stages, and how near each comes to a large
matrix multiplication.

    python benchmarks/stages.py [--threads 2] [--sizes 224,256,333x500,448,600x640]

Inference in float32, the median of eleven rounds, in which the sizes take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import hierarch
from hierarch.bench.contenders import with_biases
from hierarch.bench.machine import processor, threads_of_torch
from hierarch.cli.common import sizes as read_sizes
from hierarch.report import shown_size

ROUNDS = 11
SIDE = 2048
"""Of the large matrices."""


def seconds(model: hierarch.Backbone, images: torch.Tensor) -> list[float]:
    """The time of the stem and of each stage."""
    found, begun = [], time.perf_counter()
    x = model.embed(images)
    for stage in model.stages:
        found.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        x = stage(x)
    return [*found, time.perf_counter() - begun]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default="224,256,333x500,448,600x640")
    options = parser.parse_args()
    model, sizes = with_biases(hierarch.build("swin_tiny")).eval(), read_sizes(options.sizes)
    images = [torch.randn(1, 3, *size) for size in sizes]
    left, right = torch.randn(2, SIDE, SIDE)
    rounds: list[list[list[float]]] = [[] for _ in sizes]
    limits: list[float] = []
    with threads_of_torch(options.threads), torch.inference_mode():
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            torch.mm(left, right)
            limits.append(time.perf_counter() - begun)
            for found, image in zip(rounds, images, strict=True):
                found.append(seconds(model, image))
    limit = SIDE**3 / statistics.median(limits)
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}")
    print(f"a matrix multiplication of side {SIDE}: {limit / 1e9:.0f} GMAC/s\n")
    print("| image | " + " | ".join(f"stage {i}" for i in range(len(model.stages))) + " |")
    print("| --- " * (len(model.stages) + 1) + "|")
    report = hierarch.measure("swin_tiny", sizes)
    for size, cost, found in zip(sizes, report.sizes, rounds, strict=True):
        _, *medians = map(statistics.median, zip(*found, strict=True))
        cells = [
            f"{1e3 * took:.1f} ms, {stage.macs / took / limit:.0%}"
            for stage, took in zip(cost.stages, medians, strict=True)
        ]
        print(f"| {shown_size(size)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
