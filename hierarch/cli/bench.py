"""`hierarch bench`: times networks side by side, in one interleaved run."""

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
from hierarch.cli.streams import stream_sizes
from hierarch.errors import BenchError


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


def bench(
    context: typer.Context,
    specs: specs_argument,
    vs: Annotated[
        list[str] | None,
        typer.Option(
            "--vs",
            metavar="PEER",
            help="A network of another library to time beside them: timm:MODEL, torchvision:MODEL, "
            "transformers:MODEL_TYPE, each also as onnxruntime:... or openvino:...; or "
            "FILE.py:FUNCTION, which is executed. Never downloads. Repeatable.",
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
            help="Also time specs with weights packed in oneDNN's layout; forward only.",
        ),
    ] = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Also time networks with torch.compile; in forward with frozen weights, those of "
            "specs packed.",
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option("--threads", help="Threads of every network. torch's number, if not given."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Timed calls of each network.")] = 10,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory", help="Measure the peak memory of a call, in a separate process."
        ),
    ] = True,
    gemm: Annotated[
        int,
        typer.Option(
            "--gemm",
            metavar="SIDE",
            help="Side of the matrices of the GEMM limit; 0: none.",
        ),
    ] = 2048,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Instead of timing, show which way each operation of each module runs, and what "
            "refused the faster ways.",
        ),
    ] = False,
    stream: Annotated[
        str | None,
        typer.Option(
            "--stream",
            metavar="SIZES|FOLDER",
            help="Instead, time images of these sizes one after the other, and once more: "
            "224,333x500; 40:256-640, forty with random sides from 256 to 640; or those of a "
            "folder's images. With the memory that each network's process has after each image.",
        ),
    ] = None,
    lists: Annotated[
        int | None,
        typer.Option(
            "--lists",
            metavar="N",
            help="Also time specs that take N images of the stream a call, as a list.",
        ),
    ] = None,
    device: Annotated[
        Device, typer.Option("--device", help="Device of the networks.")
    ] = Device.cpu,
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Time specs and peers side by side: latency, throughput, peak memory, share of the GEMM limit.

    Every network is called once per round, in an order that rotates, so that a busy machine slows
    all of them alike. Weights are random. Forward: eval mode, torch.inference_mode(). Training:
    forward, cross entropy, backward and an SGD step, with each network's default drop path. Ratios
    are medians of the ratios in each round.

    Example: hierarch bench swin_tiny --vs torchvision:swin_t --sizes 224 --rounds 3 --no-memory

    Example: hierarch bench swin_tiny --vs torchvision:swin_t --stream 40:256-640 --lists 8
    """
    from hierarch.bench import benchmark, benchmark_stream, explain_specs

    read = [read_spec(source, set) for source in specs]
    if stream is not None:
        _only_of_streams(context)
        with progress("timing") as advance, redirect_stdout(sys.stderr):
            streamed = benchmark_stream(
                read,
                stream_sizes(stream, axes=read[0].axes),
                vs=vs or (),
                lists=lists,
                dtype=dtype,
                packed=pack,
                threads=threads,
                device=device.value,
                advance=advance,
            )
        write(streamed, format)
        return
    if lists is not None:
        raise BenchError("--lists is of a stream: give one with --stream")
    options: Any = {
        "sizes": None if at is None else sizes(at, axes=read[0].axes),
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
    # exporters and constructors may print, and stdout is for the result
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


def _only_of_streams(context: typer.Context) -> None:
    """Raises `BenchError` for an option of the command line that a stream does not have."""
    own = {"specs", "vs", "stream", "lists", "dtype", "pack", "threads", "device", "format", "set"}
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source and source.name == "COMMANDLINE" and option.name not in own:
            raise BenchError(f"{option.opts[0]} does not go with --stream; leave it out")


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
