"""Where the time goes, operator by operator: Swin-T, 224², a forward pass of 4 images on one
thread, as each of several has of a batch, and a training step of 8 on all. Prints a Markdown table.

python benchmarks/operators.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import profile

import hierarch

CALLS = 5
KINDS = {
    "linear layers, and GELU in a forward pass's": "linear addmm mm",
    "attention": "attention bmm baddbmm softmax",
    "norms": "layer_norm",
    "GELU": "gelu",
    "moving tokens": "copy index_select index_copy cat",
    "sums, products and fills": "add mul sum fill div sub",
    "patches": "convolution",
}


def kind(operator: str) -> str:
    """Which row an operator belongs to: the first that has one of its words."""
    name = operator.removeprefix("aten::").removeprefix("mkldnn::").strip("_")
    for kind, words in KINDS.items():
        if any(word in name if len(word) > 3 else word == name for word in words.split()):
            return kind
    return "all else: allocation, Python, autograd"


def milliseconds(call: Callable[[], object], batch: int) -> dict[str, float]:
    """An image's milliseconds in each kind of operator."""
    for _ in range(3):
        call()
    with profile() as profiled:
        for _ in range(CALLS):
            call()
    found: dict[str, float] = {}
    for event in profiled.key_averages():
        row = kind(event.key)
        found[row] = found.get(row, 0) + event.self_cpu_time_total / 1e3 / CALLS / batch
    return found


def main() -> None:
    model = hierarch.build("swin_tiny")
    threads = torch.get_num_threads()
    images = torch.randn(8, 3, 224, 224)

    @torch.inference_mode()
    def forward() -> None:
        model(images[:4])

    def training() -> None:
        model(images).square().mean().backward()
        model.zero_grad()

    model.eval()
    torch.set_num_threads(1)  # the profiler sees no thread but the caller's
    columns = [milliseconds(forward, 4)]
    model.train()
    torch.set_num_threads(threads)
    columns.append(milliseconds(training, 8))
    print(f"| ms an image | forward, 1 thread | training step, {threads} threads |")
    print("| --- | --- | --- |")
    for row in dict.fromkeys([*KINDS, *columns[0], *columns[1]]):
        print(f"| {row} | {' | '.join(f'{found.get(row, 0):.1f}' for found in columns)} |")
    print(f"| together | {' | '.join(f'{sum(found.values()):.1f}' for found in columns)} |")


if __name__ == "__main__":
    main()
