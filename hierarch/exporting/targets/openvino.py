"""OpenVINO's files (.xml, and .bin with the weights), made of ONNX. int8 by NNCF.

The precision is asked for: by default, OpenVINO chooses bfloat16 on a processor that has it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from hierarch.exporting.target import Job, Run, Target
from hierarch.exporting.targets import onnx

PRECISION = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}


def write(job: Job, path: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        onnx.write_float(job, file, onnxruntime=False)
        # openvino.convert_model would send telemetry
        model = openvino.Core().read_model(file)
        if job.dtype == "int8":
            model = _quantized(model, job)
        for key, value in job.metadata.items():
            model.set_rt_info(value, key.split("."))
        openvino.save_model(model, path, compress_to_fp16=job.dtype == "float16")


def _quantized(model: Any, job: Job) -> Any:
    with patch.dict(os.environ, {"NNCF_CI": "1"}):  # else its import turns telemetry on
        import nncf

    batches = nncf.Dataset([batch.numpy() for batch in job.calibration])
    return nncf.quantize(
        model,
        batches,
        subset_size=len(job.calibration),
        model_type=nncf.ModelType.TRANSFORMER,
    )


def load(path: Path, threads: int, dtype: str) -> Run:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(path),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISION[dtype],
        },
    )
    request = compiled.create_infer_request()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        found = request.infer([images.numpy()], share_inputs=True)
        return tuple(map(torch.from_numpy, found.to_tuple()))

    return run


TARGET = Target(
    name="openvino",
    runtime="openvino",
    suffix=".xml",
    packages=("openvino", "onnx", "onnxscript"),
    extra="openvino",
    dtypes={"float32": (), "float16": (), "bfloat16": (), "int8": ("nncf",)},
    casts=("bfloat16",),
    dynamic=True,
    write=write,
    load=load,
)
