"""Networks of torch in ONNX Runtime and OpenVINO, exported with a fixed shape.

The number of threads and the precision are the benchmark's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from hierarch.bench.settings import Setting
from hierarch.errors import BenchError
from hierarch.exporting.program import program
from hierarch.exporting.registry import get_target
from hierarch.exporting.target import Job

TARGETS = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What is exported for each runtime."""


def start(runtime: str, model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], object]:
    """A function that runs the model on these images, (B, C, H, W) in float32, in a runtime."""
    if runtime == "onnxruntime" and setting.dtype != "float32":
        # it has few CPU kernels for other types, and would convert in between
        raise BenchError(f"onnxruntime runs float32 on the CPU, not {setting.dtype}")
    target = get_target(TARGETS[runtime])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"model{target.suffix}")
        target.write(Job(program=program(model, images)), file)
        run = target.load(file, setting.threads, setting.dtype)
    return lambda: run(images)
