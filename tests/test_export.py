"""torch.compile and torch.export see the whole network, and one export serves every size."""

from __future__ import annotations

import pytest
import torch
import torch.fx.experimental._config as symbolic_shapes
from helpers import noise, perturb, tiny
from torch.export import Dim

import hierarch

HEAD = {"num_classes": 5}
RULES = ["pad", "pad_shift", "clamp"]
# one window or many, with padding and without, down to one token and one image
SIZES = [(1, 1, 1), (2, 7, 3), (1, 16, 16), (3, 33, 129), (1, 64, 64), (2, 65, 48), (1, 200, 20)]


@pytest.fixture(scope="module", params=["window_attention", "window_mlp"])
def model(request):
    return perturb(hierarch.build(tiny(request.param, head=HEAD)))


@pytest.fixture(scope="module", params=["window_attention", "window_mlp"])
def extractor(request):
    return perturb(hierarch.build(tiny(request.param)))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def gradients(model, images, run):
    model.zero_grad()
    out = run(images)
    out.square().sum().backward()
    return out, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("size", [(64, 64), (37, 50)], ids=str)
def test_compiled_is_eager_with_its_gradients(model, size):
    images = noise(2, 3, *size)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = gradients(model, images, model)
    torch.testing.assert_close(gradients(model, images, compiled), expected, rtol=1e-5, atol=1e-5)


def test_compiled_for_changing_sizes(model):
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for batch, height, width in SIZES:
            images = noise(batch, 3, height, width)
            torch.testing.assert_close(compiled(images), model(images), rtol=1e-5, atol=1e-5)


def export(model, images):
    """One program for every batch and every size.

    Sizes are treated as unknown ("oblivious", as torch's own ONNX exporter sets it): else an axis
    of one window, or a batch of one, is a case apart. What still must hold is checked when it
    runs, since its solver cannot see that n < 4n for every n that is a number of windows.
    """
    dims = {0: Dim("batch", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
    with symbolic_shapes.patch(backed_size_oblivious=True):
        return torch.export.export(
            model,
            (images,),
            dynamic_shapes=(dims,),
            prefer_deferred_runtime_asserts_over_guards=True,
        ).module()


def assert_same_at_every_size(exported, model):
    for batch, height, width in SIZES:
        images = noise(batch, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(exported(images), model(images), rtol=1e-5, atol=1e-5)


def test_one_export_serves_every_size(extractor):
    assert_same_at_every_size(export(extractor, noise(2, 3, 75, 101)), extractor)


@pytest.mark.parametrize("small_map", ["pad_shift", "clamp", "clamp_both"])
@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_one_export_serves_every_size_under_every_rule(mixer, small_map):
    spec = hierarch.swap(
        tiny(mixer, stages=[{"dim": 8, "depth": 2}], head=HEAD),
        {"type": mixer, "small_map": small_map},
    )
    model = perturb(hierarch.build(spec))
    assert_same_at_every_size(export(model, noise(2, 3, 75, 101)), model)


def test_a_plain_export_serves_sizes_of_several_windows(model):
    dims = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    exported = torch.export.export(model, (noise(2, 3, 75, 101),), dynamic_shapes=(dims,)).module()
    with torch.no_grad():
        for batch, height, width in [(2, 80, 80), (3, 97, 131), (5, 66, 130)]:
            images = noise(batch, 3, height, width)
            torch.testing.assert_close(exported(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixer", ["global_attention", "depthwise_conv", "pooling", "identity"])
def test_other_mixers_and_options_export(mixer):
    fields = {"layer_scale": 0.1, "position_embedding": {"type": "absolute", "grid": 6}}
    entry = {"type": mixer, "head_dim": 4} if mixer == "global_attention" else mixer
    stages = [{"dim": 8, "depth": 1}, {"dim": 16, "depth": 1}]
    model = perturb(hierarch.build(tiny() | {"mixer": entry, "stages": stages} | fields))
    assert_same_at_every_size(export(model, noise(2, 3, 75, 101)), model)
