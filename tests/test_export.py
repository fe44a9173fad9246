"""torch.compile and torch.export see the whole network, and one export serves every size."""

from __future__ import annotations

import pytest
import torch
import torch.fx.experimental._config as symbolic_shapes
from helpers import noise, perturb, tiny
from torch.export import Dim

import hierarch

HEAD = {"num_classes": 5}
# one window or many, with padding and without, down to one image of one token
SIZES = [(2, 7, 3), (1, 16, 16), (3, 33, 129), (1, 64, 64), (2, 65, 48), (1, 200, 20), (1, 1, 1)]
STAGES = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]


@pytest.fixture(scope="module", params=["window_attention", "window_mlp"])
def model(request):
    return perturb(hierarch.build(tiny(request.param, stages=STAGES, head=HEAD)))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def shifted_block(mixer, **fields):
    """A network of one block, whose windows are shifted."""
    entry = {"type": mixer, "head_dim": 4, "window_size": 4, "shift_size": 2, **fields}
    return perturb(hierarch.build(tiny() | {"mixer": entry, "stages": [{"dim": 8, "depth": 1}]}))


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# torch.compile: the whole network is one graph


def outputs_and_gradients(model, images, run):
    model.zero_grad()
    out = run(images)
    out.square().sum().backward()
    return out, {name: p.grad.clone() for name, p in model.named_parameters()}


def test_compiled_is_eager_with_its_gradients(model):
    images = noise(2, 3, 37, 50)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = outputs_and_gradients(model, images, model)
    assert_same(outputs_and_gradients(model, images, compiled), expected)


def test_compiled_in_training_with_checkpointing():
    model = perturb(hierarch.build(tiny(stages=STAGES[:1], head=HEAD))).train()
    images = noise(2, 3, 37, 50)
    expected = outputs_and_gradients(model, images, model)
    model.set_grad_checkpointing()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(outputs_and_gradients(model, images, compiled), expected)


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_compiled_once_for_changing_sizes(mixer):
    model = shifted_block(mixer)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        compiled(noise(2, 3, 75, 101))
        with torch.compiler.set_stance("fail_on_recompile"):
            for batch, height, width in [(3, 83, 90), (2, 97, 131)]:
                images = noise(batch, 3, height, width)
                assert_same(compiled(images), model(images))


# torch.export: one program for every batch and every size


def export(model, images):
    """What torch's own ONNX exporter asks for as well: sizes are taken as unknown, or else an axis
    of one window, or a batch of one image, would be a case apart. What still must hold is checked
    when the program runs, since no solver sees that n < 4n for every number of windows n.
    """
    dims = {0: Dim("batch", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
    with symbolic_shapes.patch(backed_size_oblivious=True):
        return torch.export.export(
            model,
            (images,),
            dynamic_shapes=(dims,),
            prefer_deferred_runtime_asserts_over_guards=True,
        ).module()


def assert_one_export_serves(model, sizes):
    exported = export(model, noise(2, 3, 75, 101))
    with torch.no_grad():
        for batch, height, width in sizes:
            images = noise(batch, 3, height, width)
            assert_same(exported(images), model(images))


def test_one_export_serves_every_size(model):
    assert_one_export_serves(model, SIZES)


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_one_export_serves_every_size_of_maps(mixer):
    assert_one_export_serves(perturb(hierarch.build(tiny(mixer, stages=STAGES))), SIZES)


@pytest.mark.parametrize("small_map", ["pad_shift", "clamp", "clamp_both"])
@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_one_export_serves_every_size_under_every_rule(mixer, small_map):
    # torch's own attention makes a case apart of a window that is clamped to one token
    clamped = mixer == "window_attention" and small_map.startswith("clamp")
    sizes = SIZES[1:-1] if clamped else SIZES
    assert_one_export_serves(shifted_block(mixer, small_map=small_map), sizes)


@pytest.mark.parametrize("mixer", ["global_attention", "pooling", "identity"])
def test_one_export_serves_every_size_with_other_mixers(mixer):
    entry = {"type": mixer, "head_dim": 4} if mixer == "global_attention" else mixer
    spec = tiny(stages=STAGES[:1], layer_scale=0.1) | {"mixer": entry}
    assert_one_export_serves(perturb(hierarch.build(spec)), SIZES)


@pytest.mark.parametrize("mixer", ["grid_attention", "neighborhood_attention", "linear_attention"])
def test_one_export_serves_every_size_with_other_attention(mixer):
    spec = tiny(stages=STAGES[:1], layer_scale=0.1) | {"mixer": {"type": mixer, "head_dim": 4}}
    # torch's own reshape makes a case apart of a sequence of one token
    sizes = SIZES if mixer == "grid_attention" else SIZES[:-1]
    assert_one_export_serves(perturb(hierarch.build(spec)), sizes)


def test_a_resized_position_is_exported():
    position = {"type": "absolute", "grid": 6}
    spec = tiny(stages=STAGES[:1], position_embedding=position) | {"mixer": "identity"}
    # torch's own bicubic resizing makes a case apart of a grid of one token
    assert_one_export_serves(perturb(hierarch.build(spec)), SIZES[:-1])


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_a_plain_export_serves_sizes_of_several_windows(mixer):
    model = shifted_block(mixer)
    dims = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    exported = torch.export.export(model, (noise(2, 3, 75, 101),), dynamic_shapes=(dims,)).module()
    with torch.no_grad():
        for batch, height, width in [(2, 80, 80), (3, 97, 131), (5, 66, 130)]:
            images = noise(batch, 3, height, width)
            assert_same(exported(images), model(images))
