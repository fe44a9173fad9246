"""Networks of torch in ONNX Runtime and OpenVINO, exported to ONNX with a fixed shape.

The number of threads and the precision are the benchmark's: by default, OpenVINO chooses bfloat16
on a processor that has it.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from hierarch.bench.settings import Setting
from hierarch.errors import BenchError, PeerError

OPSET = 20
NEEDS = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
"""Packages to install for each runtime: itself, and those of torch's exporter."""
_OPENVINO_PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def check_installed(name: str, runtime: str) -> None:
    """Raises `PeerError`, with all packages to install, if one is missing."""
    missing = [package for package in NEEDS[runtime] if not _is_installed(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise PeerError(
            f"{name[:80]!r}: {' and '.join(missing)} {verb} not installed: "
            f"pip install {' '.join(missing)}"
        )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # None or a bare module in sys.modules
        return False


def start(runtime: str, model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], object]:
    """A function that runs the model on these images, (B, C, H, W) in float32, in a runtime."""
    if runtime == "onnxruntime" and setting.dtype != "float32":
        # it has few CPU kernels for other types, and would convert in between
        raise BenchError(f"onnxruntime runs float32 on the CPU, not {setting.dtype}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        _export(model, images, file)
        return {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](file, images, setting)


def _export(model: nn.Module, images: Tensor, file: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter calls deprecated functions of torch
        torch.onnx.export(model, (images,), file, dynamo=True, opset_version=OPSET, verbose=False)


def _onnxruntime(file: Path, images: Tensor, setting: Setting) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def _openvino(file: Path, images: Tensor, setting: Setting) -> Callable[[], object]:
    import openvino

    # openvino.convert_model would send telemetry
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(str(file)),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": setting.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _OPENVINO_PRECISION[setting.dtype],
        },
    )
    request, array = compiled.create_infer_request(), images.numpy()
    return lambda: request.infer([array], share_inputs=True)
