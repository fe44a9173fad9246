"""Networks of torch in other runtimes, out of ONNX of a fixed shape.

The number of threads is the benchmark's, and so is the precision: OpenVINO would otherwise choose
bfloat16 by itself on a processor that has it.
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
"""What a runtime needs to be installed: itself, and what torch exports with."""
_OPENVINO_PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def check_installed(name: str, runtime: str) -> None:
    """Raises `PeerError` that names everything to install."""
    missing = [package for package in NEEDS[runtime] if not _is_there(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise PeerError(
            f"{name[:80]!r}: {' and '.join(missing)} {verb} not installed: "
            f"pip install {' '.join(missing)}"
        )


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # None or a bare module in sys.modules
        return False


def start(runtime: str, model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], object]:
    """The model in a runtime, as one call over images (B, C, H, W) in float32."""
    if runtime == "onnxruntime" and setting.dtype != "float32":
        # its CPU kernels for other types are few; a mix would be no comparison
        raise BenchError(f"onnxruntime runs float32 on the CPU, not {setting.dtype}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        _export(model, images, file)
        return {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](file, images, setting)


def _export(model: nn.Module, images: Tensor, file: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's, on torch's own deprecations
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

    # not openvino.convert_model, which reports its use over the network
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
