"""Swin-T in ONNX Runtime and OpenVINO, exported from hierarch and from torchvision.

    python benchmarks/exported.py [--threads 1] [--rounds 30] [--batch 1,8] [--size 224]

All files of a batch size are timed in one interleaved run, in float32. torchvision's network is
exported by torch.onnx.export as it comes, and once more by hierarch's exporter. A ratio is the
median, over the rounds, of hierarch's time over torchvision's: 1.0 and less is the goal.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import onnx
import torch
import torchvision

import hierarch
from hierarch.bench.machine import processor
from hierarch.exporting.program import program
from hierarch.exporting.registry import get_target
from hierarch.exporting.target import Job, Run
from hierarch.exporting.targets import onnx as onnx_target
from hierarch.timing import interleaved, ratio

RUNTIMES = ("onnx", "openvino")
OURS, THEIRS, BOTH = "hierarch", "torchvision", "torchvision, by hierarch"


def as_it_comes(model: torch.nn.Module, images: torch.Tensor, file: Path) -> None:
    options = {"dynamo": True, "opset_version": onnx_target.OPSET, "verbose": False}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), file, external_data=False, **options)


def files(images: torch.Tensor, folder: Path) -> dict[tuple[str, str], Path]:
    """Each network's file for each runtime. torchvision's, as it comes, is one for both."""
    theirs = torchvision.models.swin_t().eval()
    as_it_comes(theirs, images, folder / "theirs.onnx")
    made = {(runtime, THEIRS): folder / "theirs.onnx" for runtime in RUNTIMES}
    for name, network in ((OURS, hierarch.build("swin_tiny").eval()), (BOTH, theirs)):
        for runtime in RUNTIMES:
            target = get_target(runtime)
            made[runtime, name] = folder / f"{len(made)}{target.suffix}"
            target.write(Job(program=program(network, images)), made[runtime, name])
    return made


def nodes(file: Path) -> str:
    kinds = Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)
    shown = ("Transpose", "Gather", "ScatterND", "Slice", "Concat", "Pad")
    return f"{kinds.total()} nodes, " + ", ".join(f"{kinds[kind]} {kind}" for kind in shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    print(f"{processor()}; {options.threads} threads, {options.size}², {options.rounds} rounds\n")
    print(
        "| runtime | batch | network | ms | hierarch's time over it |\n"
        "| --- | --: | --- | --: | --: |"
    )
    graphs = {}
    for batch in map(int, options.batch.split(",")):
        images = torch.randn(batch, 3, options.size, options.size)
        with tempfile.TemporaryDirectory() as folder:
            made = files(images, Path(folder))
            graphs |= {name: nodes(made["onnx", name]) for name in (OURS, THEIRS, BOTH)}
            runs: dict[tuple[str, str], Run] = {
                (runtime, name): get_target(runtime).load(file, options.threads, "float32")
                for (runtime, name), file in sorted(made.items())
            }
            calls = [partial(run, images) for run in runs.values()]
            times = dict(zip(runs, interleaved(calls, rounds=options.rounds), strict=True))
        for (runtime, name), seconds in times.items():
            over = ratio(times[runtime, OURS], seconds)
            ms = 1000 * statistics.median(seconds)
            print(f"| {get_target(runtime).runtime} | {batch} | {name} | {ms:.1f} | {over:.3f} |")
    print()
    for name, graph in graphs.items():
        print(f"- {name}: {graph}")


if __name__ == "__main__":
    main()
