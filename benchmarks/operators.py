"""Prints how the time of a call is spent, by kind of operator, as a Markdown table.

Swin-T at 224². On one thread: a forward pass of 4 images (one thread's share of a batch), also
with packed weights, of a single image, and of a large one in bfloat16. On all threads: a compiled
forward pass of a single image with frozen weights, and a training step of 8 images, also of
Swin-Mixer-T/D24. The last row has the time of whole calls on all threads.

python benchmarks/operators.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import torch
from torch.profiler import profile

import hierarch
from hierarch.bench.calls import prepared
from hierarch.bench.contenders import spec_contender
from hierarch.bench.gemm import gemm_macs, multiplications
from hierarch.bench.run import GEMM_SIDE
from hierarch.bench.settings import Setting

WARM_UP = 3
CALLS = 5
GOAL = 0.85
MIXER = "mixer_tiny_d24"
KINDS = {
    "linear layers and patches, and GELU in a forward pass's": "linear addmm mm convolution",
    "attention": "attention bmm baddbmm softmax",
    "norms": "layer_norm",
    "GELU": "gelu",
    "moving tokens": "copy index_select index_copy cat",
    "sums, products and fills": "add mul sum fill div sub",
}


def kind(operator: str) -> str:
    """The row of the table that an operator belongs to: the first one with a word of its name."""
    name = operator.removeprefix("aten::").removeprefix("mkldnn::").strip("_")
    for kind, words in KINDS.items():
        if any(word in name if len(word) > 3 else word == name for word in words.split()):
            return kind
    return "all else: allocation, Python, autograd, an optimizer, a program's loops"


def by_kind(call: Callable[[], object], batch: int) -> dict[str, float]:
    """Milliseconds per image in each kind of operator, from torch's profiler."""
    for _ in range(WARM_UP):  # the allocator's cache settles in the first calls
        call()
    with profile() as profiled:
        for _ in range(CALLS):
            call()
    found: dict[str, float] = {}
    for event in profiled.key_averages():
        row = kind(event.key)
        found[row] = found.get(row, 0) + event.self_cpu_time_total / 1e3 / CALLS / batch
    return found


def whole(call: Callable[[], object], batch: int) -> float:
    """Milliseconds per image of a call, without the profiler."""
    times = []
    for _ in range(WARM_UP + CALLS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[WARM_UP:]) * 1e3 / batch


def at_the_goal() -> float:
    """Milliseconds per image of a forward pass at the goal's share of the GEMM limit."""
    setting = Setting("forward", (224, 224), 1, "float32", torch.get_num_threads())
    macs = gemm_macs(hierarch.measure("swin_tiny", [224]).sizes[0].operators, setting)
    limit = min(whole(multiply, 1) for multiply in multiplications(GEMM_SIDE, setting).values())
    return limit * macs / GEMM_SIDE**3 / GOAL


def main() -> None:
    threads = torch.get_num_threads()
    images = torch.randn(max(8, 4 * threads), 3, 224, 224)
    plain, packed = (hierarch.build("swin_tiny").eval() for _ in range(2))
    packed.pack_weights()

    def forward(model: torch.nn.Module, count: int) -> Callable[[], object]:
        def call() -> None:
            with torch.inference_mode():
                model(images[:count])

        return call

    columns = {
        "4 images": (plain, 4, 4 * threads),
        "4, packed": (packed, 4, 4 * threads),
        "1, packed": (packed, 1, 1),
    }
    ours, mixers = (spec_contender(hierarch.load(f"swin_{name}")) for name in ("tiny", MIXER))
    program = replace(ours, execution="compiled")
    image = Setting("forward", (224, 224), 1, "float32", threads)
    step = replace(image, mode="training", batch=8)
    settings = {
        "forward, 1120², 1, bfloat16": (
            ours, replace(image, size=(1120, 1120), dtype="bfloat16", threads=1)
        ),
        "forward, 1, compiled": (program, image),
        "training step, 8": (ours, step),
        "Swin-Mixer's training step, 256², 8": (mixers, replace(step, size=(256, 256))),
    }  # fmt: skip
    others = {
        f"{short}, {setting.threads} thread{'s' * (setting.threads > 1)}": (
            prepared(contender, setting), setting
        )
        for short, (contender, setting) in settings.items()
    }  # fmt: skip

    # on all threads first: torch's own attention is slower once their number has been set
    together = {
        name: whole(forward(model, shared), shared) for name, (model, _, shared) in columns.items()
    }
    together |= {name: whole(call, setting.batch) for name, (call, setting) in others.items()}
    found = {
        name: by_kind(call, setting.batch)
        for name, (call, setting) in others.items()
        if setting.threads == threads
    }
    torch.set_num_threads(1)  # the profiler sees no thread but the caller's
    alone, goal = {}, {}
    for name, (model, count, _) in columns.items():
        alone[name] = whole(forward(model, count), count)
        goal[name] = at_the_goal()
        found[name] = by_kind(forward(model, count), count)
    for name, (call, setting) in others.items():
        if name not in found:
            found[name] = by_kind(call, setting.batch)

    kinds = {name: found[name] for name in together}
    names = [*(f"forward, {column}, 1 thread" for column in columns), *others]
    print(f"| ms an image | {' | '.join(names)} |")
    print(f"| --- |{' --- |' * len(names)}")
    for row in dict.fromkeys([*KINDS, *chain(*kinds.values())]):
        print(f"| {row} | {' | '.join(f'{found.get(row, 0):.1f}' for found in kinds.values())} |")
    rows = {
        "a call, not profiled": alone,
        f"a call at {GOAL:.0%} of the GEMM limit": goal,
        f"a call on {threads} threads": together,
    }
    for row, walls in rows.items():
        cells = (f"{walls[column]:.1f}" if column in walls else "-" for column in kinds)
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
