"""ONNX files, run by ONNX Runtime. int8 by its static quantization, in QuantizeLinear nodes."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hierarch.exporting.onnx_graph import attention_translation, tidy
from hierarch.exporting.target import Job, Run, Target

OPSET = 20
"""The first one with GELU."""
INPUT = "images"
MAX_BYTES = 1_900_000_000
"""A file of protobuf ends at 2 GB; larger weights are in a second file."""


def write(job: Job, path: Path) -> None:
    if job.dtype == "int8":
        with tempfile.TemporaryDirectory() as folder:
            exact = Path(folder, "exact.onnx")
            write_float(job, exact)
            _quantize(exact, job, path)
    else:
        write_float(job, path)


def write_float(job: Job, path: Path, *, onnxruntime: bool = True) -> None:
    """`onnxruntime`: whether that is what runs the file."""
    with _quiet(), torch.no_grad():
        made = torch.onnx.export(
            job.program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=job.outputs,
            dynamic_shapes=({**job.dynamic},) if job.dynamic else None,
            custom_translation_table=attention_translation(job.program),
            optimize=False,
            verbose=False,
        )
        assert made is not None
        tidy(made.model, onnxruntime=onnxruntime)
    made.model.metadata_props.update(job.metadata)
    weights = sum(t.nbytes for t in job.program.state_dict.values())
    made.save(path, external_data=weights > MAX_BYTES)


def _quantize(exact: Path, job: Job, path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # of no known type
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(job.calibration)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with _quiet():
        quantize_static(
            exact,
            path,
            Batches(),
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # products of two activations, inside attention, stay in float32
            extra_options={"MatMulConstBOnly": True},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters tell their own authors: of deprecated functions of torch, and of what
    they do not optimize."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def load(path: Path, threads: int, dtype: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # not what it cannot fold in float16
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {given.name: images.numpy()})))

    return run


TARGET = Target(
    name="onnx",
    runtime="onnxruntime",
    suffix=".onnx",
    packages=("onnxruntime", "onnx", "onnxscript"),
    extra="onnx",
    dtypes={"float32": (), "float16": (), "int8": ()},
    casts=("float16",),
    dynamic=True,
    write=write,
    load=load,
)
