"""Video Swin, and lists of images of several sizes, against torchvision.

    python benchmarks/videos.py [--threads 2] [--rounds 7] [--frames 16]

Inference in float32. A ratio is the median, over the rounds of one interleaved run, of hierarch's
time over torchvision's. Memory is the peak above the network and its input, each in a process of
its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

import hierarch
from hierarch.bench.machine import processor
from hierarch.timing import interleaved, ratio

OURS, THEIRS = "hierarch", "torchvision"
SIZES = [
    (256, 256),
    (333, 500),
    (400, 520),
    (448, 448),
    (600, 640),
    (300, 400),
    (512, 384),
    (640, 480),
]
"""Of a list of images."""


def clip(frames: int) -> torch.Tensor:
    return torch.randn(1, 3, frames, 224, 224, generator=torch.Generator().manual_seed(0))


def video(name: str) -> torch.nn.Module:
    if name == OURS:
        return hierarch.build("video/swin3d_tiny").eval()
    return torchvision.models.video.swin3d_t().eval()


def peak(name: str, frames: int, threads: int) -> float:
    """MB above the network and its input, in a process of its own."""
    command = [sys.executable, __file__, "--peak", name]
    options = ["--frames", str(frames), "--threads", str(threads)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_peak(name: str, frames: int) -> None:
    network, images = video(name), clip(frames)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _status("VmRSS")
    with torch.inference_mode():
        network(images)
    print((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> str:
    with torch.inference_mode():
        times = interleaved([*calls.values()], rounds=rounds)
    medians = ", ".join(
        f"{n} {statistics.median(t):.3f} s" for n, t in zip(calls, times, strict=True)
    )
    ratios = ", ".join(f"{ratio(own, times[-1]):.2f}" for own in times[:-1])
    return f"{medians}; ratios {ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--peak", choices=(OURS, THEIRS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print_peak(options.peak, options.frames)
        return
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}")
    images, networks = clip(options.frames), {name: video(name) for name in (OURS, THEIRS)}
    calls = {name: lambda network=network: network(images) for name, network in networks.items()}
    print(f"swin3d_t, {options.frames}x224x224:", timed(calls, options.rounds))
    peaks = [peak(name, options.frames, options.threads) for name in (OURS, THEIRS)]
    print(f"memory: {peaks[0]:,.0f} MB against {peaks[1]:,.0f} MB, ratio {peaks[0] / peaks[1]:.2f}")
    ours = hierarch.build("swin_tiny").eval()
    theirs = torchvision.models.swin_t().eval()
    photos = [torch.randn(3, *size) for size in SIZES]
    lists = {
        "a list": lambda: ours(photos),
        "one by one": lambda: [ours(photo[None]) for photo in photos],
        THEIRS: lambda: [theirs(photo[None]) for photo in photos],
    }
    print(f"swin_t, {len(SIZES)} images of as many sizes:", timed(lists, options.rounds))


if __name__ == "__main__":
    main()
