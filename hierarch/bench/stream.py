"""A stream: images of different sizes, one call after the other, through each contender twice.

A benchmark of one size calls a network that has seen the size before. A detector, a segmenter or a
server meets sizes that it has not seen, and many of them: what is prepared for each size takes time
in the first pass, and memory for as long as it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import torch

from hierarch.bench.contenders import Contender, named_contenders
from hierarch.bench.machine import processor
from hierarch.bench.processes import worker
from hierarch.bench.settings import Setting, settings, whole
from hierarch.bench.stream_sizes import groups
from hierarch.errors import BenchError
from hierarch.report.stream import StreamCall, StreamReport, StreamRow
from hierarch.spec.grid import Sides, checked_size
from hierarch.spec.load import Source, load
from hierarch.timing import rotation

PASSES = 2


def benchmark_stream(
    specs: Iterable[Source],
    sizes: Iterable[int | Sequence[int]],
    *,
    vs: Iterable[str] = (),
    lists: int | None = None,
    dtype: str = "float32",
    packed: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    advance: Callable[[int, int], object] | None = None,
) -> StreamReport:
    """Time images of these sizes, one at a time and in this order, through specs and peers, and
    then once more; with the memory that each network's process has after each image.

    Every network is built for all sizes, in a process of its own, and takes its turn at each image,
    in an order that rotates. The process has made one call before, with another instance of the
    network and an image of a size that is not in the stream, so that its libraries are loaded.

    `lists` adds each spec once more, which takes so many images a call, as `model([image, ...])`;
    turns are then of as many images. The other arguments are those of `benchmark`; peers in another
    runtime are exported for one size, and not in a stream. `advance` is called with the number of
    steps done and of all steps.

    Raises `BenchError` for invalid options, and for a network that fails, `SpecError` for an
    invalid spec or size, and `PeerError` for an unknown peer, or one that does not take a size.

    >>> small = {"name": "small", "mixer": "pooling", "stages": [{"dim": 8, "depth": 1}]}
    >>> report = benchmark_stream([small], [32, (40, 24)], threads=1)
    >>> [len(calls) for calls in report.rows[0].passes]
    [2, 2]
    """
    loaded = [load(source) for source in specs]
    if not loaded:
        raise BenchError("no spec to benchmark")
    stream = [checked_size(size, axes=loaded[0].axes) for size in sizes]
    if not stream:
        raise BenchError("nothing to measure: no size")
    [setting] = settings(
        modes=["forward"],
        sizes=stream[:1],
        batches=[1],
        dtypes=[dtype],
        threads=threads,
        device=device,
        default_size=loaded[0].size,
    )
    runners = _runners(named_contenders(loaded, vs), lists, packed)
    if packed and device != "cpu":
        raise BenchError("weights are packed on the CPU; leave packing or the device out")
    rows = _run(runners, stream, setting, advance)
    unknown = [row.name for row in rows if row.built is None]
    return StreamReport(
        device=torch.cuda.get_device_name() if device == "cuda" else processor(),
        threads=setting.threads,
        torch=torch.__version__,
        dtype=dtype,
        sizes=tuple(stream),
        rows=rows,
        notes=("memory: the platform has no /proc/self/status",) if unknown else (),
    )


@dataclass(frozen=True)
class _Runner:
    contender: Contender
    together: int
    """Images that it takes a call, as a list; 0: one, as a batch."""


def _runners(contenders: Sequence[Contender], lists: int | None, packed: bool) -> list[_Runner]:
    """The contenders; then the specs packed, and all of these on lists."""
    for contender in contenders:
        if contender.runtime:
            raise BenchError(f"{contender.name} is exported for one size; leave it out of a stream")
    ours = [contender for contender in contenders if not contender.is_peer]
    more = [replace(contender, execution="packed") for contender in ours] if packed else []
    runners = [_Runner(contender, 0) for contender in (*contenders, *more)]
    if lists is not None:
        whole("lists", lists, least=2)
        runners += [_Runner(contender, lists) for contender in (*ours, *more)]
    return runners


def _run(
    runners: Sequence[_Runner],
    stream: Sequence[Sides],
    setting: Setting,
    advance: Callable[[int, int], object] | None,
) -> tuple[StreamRow, ...]:
    group = max(1, *(runner.together for runner in runners))
    turns = groups(len(stream), group)
    steps, done = len(runners) * (1 + PASSES * len(turns)), 0

    def step() -> None:
        nonlocal done
        done += 1
        if advance:
            advance(done, steps)

    with ExitStack() as stack:
        # all import their libraries at once, and then each builds its network
        workers = [
            stack.enter_context(worker(runner.contender.name, setting.threads))
            for runner in runners
        ]
        built = []
        for runner, process in zip(runners, workers, strict=True):
            built.append(process.ask(_request(runner, stream, setting, group)))
            step()
        passes: list[list[list[StreamCall]]] = [[[] for _ in range(PASSES)] for _ in runners]
        for number in range(PASSES):
            for turn, order in zip(turns, rotation(len(runners), len(turns)), strict=True):
                for index in order:
                    calls = workers[index].ask(turn)
                    sizes = stream[slice(*turn)]
                    each = [sizes] if runners[index].together else [[size] for size in sizes]
                    passes[index][number] += [
                        StreamCall(
                            sizes=tuple(taken), seconds=call["seconds"], resident=call["resident"]
                        )
                        for taken, call in zip(each, calls, strict=True)
                    ]
                    step()
    return tuple(
        StreamRow(
            name=runner.contender.name,
            is_peer=runner.contender.is_peer,
            execution=runner.contender.execution,
            together=runner.together,
            built=before,
            passes=tuple(map(tuple, calls)),
        )
        for runner, before, calls in zip(runners, built, passes, strict=True)
    )


def _request(
    runner: _Runner, stream: Sequence[Sides], setting: Setting, group: int
) -> dict[str, object]:
    return {
        "origin": dict(runner.contender.origin),
        "execution": runner.contender.execution,
        "setting": asdict(setting),
        "sizes": stream,
        "together": runner.together,
        "group": group,
    }
