"""All that needs a GPU in one run of under ten minutes, as a Markdown page: tests, times beside
other libraries, and kinds of attention.

    python benchmarks/gpu.py [--out gpu.md] [--minutes 9.5]

The steps come in the order of their weight, and one that would begin after the time is over is
listed as not run. Without a GPU nothing is measured. `--device cpu --quick` only shows that every
step works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from settings import SWIN_B, SWIN_T
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention as sdpa

import hierarch
from hierarch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
SWIN_V2 = "--vs timm:swinv2_tiny_window8_256 --vs torchvision:swin_v2_t"
COMMON = "--dtype bfloat16,float16 --device cuda --gemm 0 --rounds 10"
BOTH = "--mode forward,training"
COMMANDS = (
    f"swin_tiny {SWIN_T} --sizes 224 --batch 1,64 {COMMON}",
    f"swin_tiny {SWIN_T} --sizes 224 --batch 64 --mode training {COMMON}",
    f"swin_base {SWIN_B} --sizes 224 --batch 1,64 {COMMON}",
    f"swin_tiny {SWIN_T} --sizes 1120 --batch 1,8 {COMMON}",
    f"swin_base {SWIN_B} --sizes 224 --batch 64 --mode training {COMMON}",
    f"swin_v2/swin_v2_tiny_window8_256 {SWIN_V2} --sizes 256 --batch 1,64 {BOTH} {COMMON}",
    f"swin_mixer_tiny_d24 --sizes 256 --batch 1,64 {BOTH} {COMMON}",
    f"swin_tiny {SWIN_T} --sizes 224 --batch 64 {BOTH} --compile {COMMON}",
)
QUICK = "swin_tiny --sizes 32 --batch 1 --device cpu --gemm 0 --rounds 2 --no-memory"
WINDOWS, HEADS, SIDE, HEAD_DIM = 64 * 64, 3, 7, 32
"""Attention in the first stage of Swin-T at 224², batch 64."""


@dataclass(frozen=True)
class Step:
    title: str
    run: Callable[[], str]
    """Returns Markdown. Raises `RuntimeError` if it fails."""


def output(*words: str) -> str:
    """What a command of Python's prints. Raises `RuntimeError` with its last line if it fails."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no message"]
        raise RuntimeError(f"status {done.returncode}: {lines[-1]}")
    return done.stdout.strip()


def tests() -> str:
    found = output("pytest", "-o", "addopts=", "-q", "tests/test_gpu.py")
    return f"`pytest tests/test_gpu.py`: {found.splitlines()[-1]}"


def bench(command: str) -> str:
    return output("hierarch", "bench", *shlex.split(command), "--format", "markdown")


def attention(device: str, windows: int) -> str:
    """The shifted windows of one map in each kind of attention, with position bias and mask; and
    windows of several lengths, without either, as a nested batch and padded to the longest."""
    mixer = hierarch.build("swin_tiny").stages[0].blocks[1].mixer.to(device)
    side = SIDE * math.isqrt(windows)
    cut = mixer.cut((side, side))
    dtype = torch.float16 if device == "cuda" else torch.float32
    with torch.no_grad():
        by_kind = mixer.masks(cut, torch.empty(0, SIDE**2, 1, device=device))
    masks = [(count, by_kind[kind].to(dtype)) for kind, count in cut.runs(1) if count]
    counts = torch.tensor([count for count, _ in masks], device=device)
    kinds = torch.arange(len(masks), device=device).repeat_interleave(counts)
    table = torch.cat([mask for _, mask in masks])
    lengths = torch.randint(SIDE, SIDE**2 + 1, (windows,)).tolist()
    flex = torch.compile(flex_attention) if device == "cuda" else flex_attention

    def added(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + table[kinds[b], h, i, j]

    def nested(x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).unbind()
        parts = [one[:length] for one, length in zip(rows, lengths, strict=True)]
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged).transpose(1, 2)

    def milliseconds(gradient: bool) -> dict[str, str]:
        shape, options = (windows, HEADS, SIDE**2, HEAD_DIM), {"device": device, "dtype": dtype}
        q, k, v = (torch.randn(shape, **options).requires_grad_(gradient) for _ in "qkv")
        alike: dict[str, Callable[[], Tensor]] = {
            "mask by mask, hierarch's": lambda: functional.attention(q, k, v, masks),
            "one mask for each window": lambda: joined(sdpa(q, k, v, attn_mask=table[kinds])),
            "FlexAttention": lambda: joined(flex(q, k, v, score_mod=added)),
        }
        padded = {"several lengths, padded": lambda: joined(sdpa(q, k, v))}
        if gradient:
            return {name: timed(way, gradient) for name, way in (alike | padded).items()}
        first, *others = (way() for way in alike.values())
        for other in others:
            torch.testing.assert_close(other, first, rtol=0, atol=1e-2)
        jagged = [nested(x) for x in (q, k, v)]
        ways = alike | padded | {"several lengths, nested": lambda: sdpa(*jagged).values()}
        return {name: timed(way, gradient) for name, way in ways.items()}

    forward, step = milliseconds(False), milliseconds(True)
    head = ["| attention | forward (ms) | with gradient (ms) |", "| --- | --- | --- |"]
    return "\n".join(
        head + [f"| {n} | {ms} | {step.get(n, 'none')} |" for n, ms in forward.items()]
    )


def joined(heads: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return heads.transpose(1, 2).flatten(2)


def timed(way: Callable[[], Tensor], gradient: bool) -> str:
    def once() -> float:
        begun = time.perf_counter()
        out = way()
        if gradient:
            out.sum().backward()
        if out.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    try:
        for _ in range(3):
            once()
        return f"{statistics.median(once() for _ in range(10)) * 1e3:.2f}"
    except NotImplementedError:
        return "none"


def steps(device: str, quick: bool) -> Iterator[Step]:
    yield Step("Tests", tests)
    for command in (QUICK,) if quick else COMMANDS:
        yield Step(f"`hierarch bench {command}`", partial(bench, command))
    yield Step("Kinds of attention", partial(attention, device, 16 if quick else WINDOWS))


def page(device: str, quick: bool, minutes: float) -> Iterator[str]:
    """The page, part by part, as each is measured."""
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU, which means nothing"
    yield f"# On a GPU\n\nMeasured on {name}, torch {torch.__version__}.\n"
    begun = time.monotonic()
    for step in steps(device, quick):
        yield f"## {step.title}\n"
        if time.monotonic() - begun > 60 * minutes:
            yield "Not run: the time was over.\n"
            continue
        try:
            yield f"{step.run()}\n"
        except Exception as error:  # the other steps are still worth their time
            yield f"Failed: {type(error).__name__}: {error}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    parser.add_argument("--minutes", type=float, default=9.5, help="when no step begins any more")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: nothing is measured")
    parts = []
    for part in page(options.device, options.quick, options.minutes):
        print(part, flush=True)
        parts.append(part)
        if options.out:  # after each step, so that no result is lost if a later one hangs
            options.out.write_text("\n".join(parts), encoding="utf-8")
    sys.exit(any(part.startswith("Failed: ") for part in parts))


if __name__ == "__main__":
    main()
