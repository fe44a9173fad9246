"""`hierarch bench`: how fast networks are, side by side in one interleaved run."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from typing import Annotated, Any

import typer

from hierarch.cli.common import (
    Format,
    format_option,
    numbers,
    read_spec,
    set_option,
    sizes,
    specs_argument,
    write,
)
from hierarch.cli.progress import progress
from hierarch.errors import BenchError


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


def bench(
    specs: specs_argument,
    vs: Annotated[
        list[str] | None,
        typer.Option(
            "--vs",
            metavar="PEER",
            help="A peer that is no spec, timed beside them: timm:MODEL, torchvision:MODEL, "
            "transformers:MODEL_TYPE, each also as onnxruntime:... or openvino:...; or "
            "FILE.py:FUNCTION, which is run. Never downloads. Repeatable.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            help="Image sizes: 224,448,896x1120 (height x width). The first spec's, if not given.",
        ),
    ] = None,
    batch: Annotated[str, typer.Option("--batch", help="Images a call: 1,8.")] = "1",
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, bfloat16, float16, or several: a,b.")
    ] = "float32",
    mode: Annotated[
        str,
        typer.Option("--mode", help="forward, training, or both: forward,training."),
    ] = "forward",
    pack: Annotated[
        bool,
        typer.Option(
            "--pack",
            help="Time specs with their weights packed too, as oneDNN multiplies them; forward.",
        ),
    ] = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Time networks of torch compiled too; forward with their weights frozen, specs' "
            "packed.",
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Of everybody. torch's number, if not given.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Timed calls of each.")] = 10,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory", help="Peak memory of a call, in a process of its own."
        ),
    ] = True,
    gemm: Annotated[
        int,
        typer.Option(
            "--gemm",
            metavar="SIDE",
            help="Side of the matrices whose multiplication is the machine's limit; 0: none.",
        ),
    ] = 2048,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Time nothing: show which way each block, stage and layer runs, and what refused "
            "the faster ones.",
        ),
    ] = False,
    device: Annotated[Device, typer.Option("--device", help="Where they run.")] = Device.cpu,
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Time specs and peers side by side: latency, throughput, peak memory, share of the GEMM limit.

    Everybody is called once a round, in an order that rotates, so that a busy machine slows all
    alike. Weights are random. Forward: eval mode, torch.inference_mode(). Training: forward, cross
    entropy, backward and an SGD step, with drop path as each network has it by default. Ratios are
    medians of the ratios round by round.

    Example: hierarch bench swin_tiny --vs torchvision:swin_t --sizes 224 --rounds 3 --no-memory
    """
    from hierarch.bench import benchmark, explain_specs

    read = [read_spec(source, set) for source in specs]
    options: Any = {
        "sizes": None if at is None else sizes(at),
        "batches": numbers(batch, "--batch"),
        "dtypes": _names(dtype),
        "modes": _names(mode),
        "packed": pack,
        "threads": threads,
        "device": device.value,
    }
    if explain:
        if vs or compile:
            raise BenchError("--explain is of specs, run eagerly: leave out --vs and --compile")
        write(explain_specs(read, **options), format)
        return
    # exporters and constructors print, and stdout is the result's
    with progress("timing") as advance, redirect_stdout(sys.stderr):
        report = benchmark(
            read,
            vs=vs or (),
            compiled=compile,
            rounds=rounds,
            memory=memory,
            gemm_side=gemm,
            advance=advance,
            **options,
        )
    write(report, format)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
