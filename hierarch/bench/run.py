"""The benchmark: in each setting, contenders are built, warmed up, timed in rotation, compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from hierarch.bench.calls import prepared
from hierarch.bench.contenders import Contender, check_runtime, named_contenders
from hierarch.bench.gemm import gemm_macs, multiplications, share
from hierarch.bench.machine import processor, threads_of_torch
from hierarch.bench.memory import Peak, peak
from hierarch.bench.settings import Setting, settings, whole
from hierarch.errors import BenchError, CountError
from hierarch.report import BenchReport, BenchRow, BenchSetting, GemmLimit, shown_size
from hierarch.spec.grid import Sides
from hierarch.spec.load import Source, load
from hierarch.timing import WARMUP, interleaved, ratio

GEMM_SIDE = 2048
ROUNDS = 10


def benchmark(
    specs: Iterable[Source],
    *,
    vs: Iterable[str] = (),
    sizes: Iterable[int | Sequence[int]] | None = None,
    batches: Iterable[int] = (1,),
    dtypes: Iterable[str] = ("float32",),
    modes: Iterable[str] = ("forward",),
    packed: bool = False,
    compiled: bool = False,
    rounds: int = ROUNDS,
    threads: int | None = None,
    device: str = "cpu",
    memory: bool = True,
    gemm_side: int = GEMM_SIDE,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[int, int], object] | None = None,
) -> BenchReport:
    """Time specs and peers side by side, in every combination of mode, size, batch and dtype.

    A peer is "timm:MODEL", "torchvision:MODEL" or "transformers:MODEL_TYPE"; one of these after
    "onnxruntime:" or "openvino:", for the same network in that runtime; or "FILE.py:FUNCTION",
    where the function returns a module for three-channel images. The file is executed.

    A size is in pixels, or (height, width); the default is the first spec's `input_size`. Weights
    are random. `packed` adds each spec with packed weights (`Backbone.pack_weights`), and
    `compiled` adds each network of torch with torch.compile. `threads` defaults to torch's number.
    `memory` measures each contender's peak memory in a separate process. `gemm_side` is the side of
    the matrices of the GEMM limit; 0 leaves it out. `advance` is called with the number of steps
    done and of all steps. On CUDA each call is synchronized.

    Raises `BenchError` for invalid options, `SpecError` for an invalid spec or size, and
    `PeerError` for an unknown peer, or one that does not support the setting.

    >>> small = {"name": "small", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> report = benchmark([small], sizes=[32], rounds=2, memory=False, gemm_side=0)
    >>> [row.name for row in report.settings[0].rows]
    ['small']
    """
    loaded = [load(source) for source in specs]
    if not loaded:
        raise BenchError("no spec to benchmark")
    whole("rounds", rounds)
    whole("gemm", gemm_side, least=0)
    modes = list(modes)
    planned = list(
        settings(
            modes=modes,
            sizes=sizes,
            batches=batches,
            dtypes=dtypes,
            threads=threads,
            device=device,
            default_size=loaded[0].size,
        )
    )
    if not planned:
        raise BenchError("nothing to measure: no size, batch, dtype or mode")
    contenders = named_contenders(loaded, vs)
    for contender in contenders:
        check_runtime(contender, modes, device)
    once_more = []
    if packed:
        if modes != ["forward"] or device != "cpu":
            raise BenchError("weights are packed for forward on the CPU; leave packing or the rest")
        ours = [contender for contender in contenders if not contender.is_peer]
        once_more += [replace(contender, execution="packed") for contender in ours]
    if compiled:
        eager = [contender for contender in contenders if not contender.runtime]
        once_more += [replace(contender, execution="compiled") for contender in eager]
    contenders += once_more
    steps = (len(contenders) + (2 if gemm_side else 0)) * (rounds + WARMUP) + memory * len(
        contenders
    )
    options = _Options(rounds, memory, gemm_side, clock, _Steps(steps * len(planned), advance))
    with threads_of_torch(planned[0].threads):
        measured = tuple(_measured(contenders, setting, options) for setting in planned)
    return BenchReport(
        device=torch.cuda.get_device_name() if device == "cuda" else processor(),
        threads=planned[0].threads,
        torch=torch.__version__,
        rounds=rounds,
        settings=measured,
        notes=tuple(dict.fromkeys(options.notes)),
    )


@dataclass
class _Steps:
    total: int
    advance: Callable[[int, int], object] | None
    done: int = 0

    def __call__(self) -> None:
        self.done += 1
        if self.advance:
            self.advance(self.done, self.total)


@dataclass(frozen=True)
class _Options:
    rounds: int
    memory: bool
    gemm_side: int
    clock: Callable[[], float]
    step: _Steps
    notes: list[str] = field(default_factory=list)
    operators: dict[tuple[str, Sides], dict[str, int]] = field(default_factory=dict)
    """MACs by operator, by name and size: they are the same for every batch and dtype."""


def _measured(contenders: Sequence[Contender], setting: Setting, options: _Options) -> BenchSetting:
    torch.compiler.reset()  # the compiler stops compiling code that was called with too many shapes
    calls = [prepared(contender, setting) for contender in contenders]
    gemms = multiplications(options.gemm_side, setting) if options.gemm_side else {}
    times = interleaved(
        [*calls, *gemms.values()], rounds=options.rounds, clock=options.clock, advance=options.step
    )
    times, multiplied = times[: len(contenders)], times[len(contenders) :]
    limits = [
        GemmLimit(operator=name, side=options.gemm_side, seconds=seconds)
        for name, seconds in zip(gemms, multiplied, strict=True)
    ]
    limit = max(limits, key=lambda limit: limit.gmacs_per_second, default=None)
    del calls, gemms
    peaks = [_peak(contender, setting, options) for contender in contenders]
    macs = [_macs(contender, setting, options) for contender in contenders]
    rows = []
    for contender, seconds, memory, work in zip(contenders, times, peaks, macs, strict=True):
        rival = _fastest_peer(contender, contenders, times)
        rows.append(
            BenchRow(
                name=contender.name,
                is_peer=contender.is_peer,
                execution=contender.execution,
                batch=setting.batch,
                seconds=seconds,
                vs_first=ratio(seconds, times[0]),
                vs_fastest_peer=ratio(seconds, rival) if rival else None,
                memory=memory.bytes,
                macs=work,
                gemm_share=share(work, seconds, options.gemm_side, limit.seconds)
                if work and limit
                else None,
            )
        )
    return BenchSetting(
        mode=setting.mode,
        size=setting.size,
        batch=setting.batch,
        dtype=setting.dtype,
        gemm=limit,
        rows=tuple(rows),
    )


def _fastest_peer(
    contender: Contender, contenders: Sequence[Contender], times: Sequence[tuple[float, ...]]
) -> tuple[float, ...] | None:
    """The times of the fastest peer with the contender's execution, runtimes included. A contender
    with packed weights is compared with eager peers, which have no packed weights."""
    ways = {"eager" if contender.execution == "packed" else contender.execution, "runtime"}
    rivals = [
        seconds
        for other, seconds in zip(contenders, times, strict=True)
        if other.is_peer and other.execution in ways
    ]
    return min(rivals, key=statistics.median, default=None)


def _peak(contender: Contender, setting: Setting, options: _Options) -> Peak:
    if not options.memory:
        return Peak(None)
    measured = peak(contender, setting)
    if measured.why:
        options.notes.append(f"memory of {contender.name}: {measured.why}")
    options.step()
    return measured


def _macs(contender: Contender, setting: Setting, options: _Options) -> int | None:
    if not options.gemm_side:
        return None
    try:
        key = (contender.name, setting.size)
        if key not in options.operators:
            options.operators[key] = contender.operators(setting.size)
        return gemm_macs(options.operators[key], setting)
    except CountError as error:
        where = f"{contender.name} at {shown_size(setting.size)}"
        options.notes.append(f"no share of the GEMM limit for {where}: {error}")
        return None
