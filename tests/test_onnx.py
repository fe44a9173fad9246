"""Traces and ONNX files, run by the real onnxruntime, at the size of the example and at others."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from helpers import newer_compiler, noise, perturb, tiny
from torch.export import Dim

import hierarch

HEAD = {"num_classes": 5}
STAGES = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]
EXAMPLE = (2, 3, 75, 101)
SIZES = [EXAMPLE, (1, 3, 64, 64), (3, 3, 33, 129), (1, 3, 200, 52)]
WINDOWED = ["window_attention", "window_mlp", "cosine_window_attention", "grid_attention"]
MIXERS = {
    **{name: {"type": name, "head_dim": 4, "window_size": 4} for name in WINDOWED},
    **{name: {"type": name, "head_dim": 4} for name in ("global_attention", "linear_attention")},
    **{name: name for name in ("pooling", "depthwise_conv", "separable_conv", "identity")},
}
SHIFTED = WINDOWED[:3]


def network(mixer):
    entry = MIXERS[mixer]
    cycle = [entry, entry | {"shift_size": 2}] if mixer in SHIFTED else entry
    return perturb(hierarch.build(tiny(stages=STAGES, head=HEAD) | {"mixer": cycle}))


def onnx_runtime(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: torch.from_numpy(session.run(None, {given.name: images.numpy()})[0])


@torch.no_grad()
def assert_same_outputs(run, model, sizes):
    for size in sizes:
        images = noise(*size)
        torch.testing.assert_close(run(images), model(images), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_trace_computes_the_same(mixer):
    model = network(mixer)
    with torch.no_grad():
        traced = torch.jit.trace(model, noise(*EXAMPLE))
    assert_same_outputs(traced, model, [EXAMPLE])


@pytest.mark.filterwarnings("ignore")  # of the old exporter, which torch deprecates
@pytest.mark.parametrize("mixer", [*SHIFTED, "grid_attention"])
def test_the_old_exporter_writes_one_file_for_all_sizes(tmp_path, mixer):
    model, path = network(mixer), tmp_path / "model.onnx"
    axes = {0: "batch", 2: "height", 3: "width"}
    with torch.no_grad():
        torch.onnx.export(
            model,
            (noise(*EXAMPLE),),
            path,
            dynamo=False,
            input_names=["images"],
            dynamic_axes={"images": axes},
        )
    assert_same_outputs(onnx_runtime(path), model, SIZES)


@newer_compiler
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
@pytest.mark.parametrize("mixer", MIXERS)
def test_the_new_exporter_writes_one_file_for_all_sizes(tmp_path, mixer):
    model, path = network(mixer), tmp_path / "model.onnx"
    dims = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        torch.onnx.export(
            model, (noise(*EXAMPLE),), path, dynamo=True, dynamic_shapes=(dims,), verbose=False
        )
    assert_same_outputs(onnx_runtime(path), model, SIZES)


@newer_compiler
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_the_new_exporter_writes_a_file_for_one_size(tmp_path, mixer):
    model, path = network(mixer), tmp_path / "model.onnx"
    with torch.no_grad():
        torch.onnx.export(model, (noise(*EXAMPLE),), path, dynamo=True, verbose=False)
    assert_same_outputs(onnx_runtime(path), model, [EXAMPLE])
