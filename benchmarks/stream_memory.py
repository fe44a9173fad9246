"""What holds the memory of a stream of images of many sizes.

    python benchmarks/stream_memory.py [--threads 2] [--images 40]

Swin-T takes the images of `stream.py`, one at a time, twice. Linux with glibc alone, whose heap is
asked to give back what it does not use.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import resource
from pathlib import Path

import torch

import hierarch
from hierarch import engine
from hierarch.bench import random_sizes
from hierarch.bench.contenders import with_biases
from hierarch.bench.machine import processor


def resident() -> float:
    """Megabytes of this process, after garbage is collected."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}")
    sizes = random_sizes(options.images, 256, 640)
    model = with_biases(hierarch.build("swin_tiny")).eval()
    built, trim = resident(), ctypes.CDLL(None).malloc_trim
    with torch.inference_mode():
        for _ in range(2):
            for size in sizes:
                model(torch.zeros(1, 3, *size))
    held = resident()
    trim(0)
    trimmed = resident()
    engine.clear()
    trim(0)
    left = resident()
    print(f"{held - built:.0f} MB above the network after the second pass")
    print(
        f"{held - trimmed:.0f} MB of it are the heap's, unused; {trimmed - left:.0f} MB the "
        f"engine's caches; {left - built:.0f} MB all else, such as oneDNN's programs"
    )


if __name__ == "__main__":
    main()
