"""Packed weights: one copy, in oneDNN's order, with the same outputs."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from helpers import (
    assert_same_to_scale,
    newer_compiler,
    noise,
    one_per_folder,
    perturb,
    shallow,
    tiny,
)
from torch import nn

import hierarch
from hierarch import engine
from hierarch.engine import onednn
from hierarch.engine.onednn import ONEDNN_DTYPES
from hierarch.engine.packing import PackedLinear
from hierarch.spec.grid import per_axis

HEAD = {"num_classes": 5}
MIXERS = ["window_attention", "cosine_window_attention", "window_mlp"]
IMAGES = noise(2, 3, 52, 60)
SHALLOW = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]
"""Stages for a compiler, which takes seconds a block: regular and shifted windows, a merging."""


def network(mixer="window_attention", seed=0, **fields):
    torch.manual_seed(0)
    return perturb(hierarch.build(tiny(mixer, head=HEAD, **fields)), seed=seed)


@torch.no_grad()
def logits(model, images=IMAGES):
    return model(images)


def plain(model, images=IMAGES):
    with engine.disabled():
        return logits(model, images)


def assert_close(found, wanted, atol=1e-5):
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_output_is_the_same(mixer):
    model = network(mixer)
    wanted = plain(model)
    assert_close(logits(model.pack_weights()), wanted)
    assert sum(type(layer) is PackedLinear for layer in model.modules()) > 15
    left = {name for name, layer in model.named_modules() if type(layer) is nn.Linear}
    assert all(".cpb_mlp." in name for name in left)


# networks of a folder differ in widths and depths, but for these two folders
@pytest.mark.parametrize("preset", one_per_folder("ablations", "metaformer"))
def test_any_network_can_be_packed(preset):
    spec = shallow(preset)
    head = spec.head or {"num_classes": 3}  # an encoder has none
    model = perturb(hierarch.build(spec, head=head), std=0.01)
    images = noise(1, spec.stem.in_chans, *per_axis(spec.input_size))
    wanted = plain(model, images)
    found = logits(model.pack_weights(), images)
    assert_same_to_scale([found], [wanted])


@pytest.mark.skipif(torch.bfloat16 not in ONEDNN_DTYPES, reason="no bfloat16 here")
def test_bfloat16_is_multiplied_as_before():
    model = network().bfloat16()
    wanted = logits(model, IMAGES.bfloat16())
    found = logits(model.pack_weights(), IMAGES.bfloat16())
    assert found.dtype is torch.bfloat16
    assert_close(found, wanted, atol=0.02)


def test_a_packed_layer_computes_oneDNNs_product(monkeypatch, onednn_faster):
    seen = []
    original = onednn.onednn_linear

    def watched(x, weight, *rest):
        seen.append(weight.layout)
        return original(x, weight, *rest)

    monkeypatch.setattr(onednn, "onednn_linear", watched)
    monkeypatch.setattr(onednn, "MIN_MULTIPLY_ADDS", 0)
    model = network().pack_weights()
    seen.clear()
    logits(model, IMAGES[:1])  # more are shared among threads, and each calls every layer
    # the patch embedding alone is a convolution with a weight of its own
    assert seen.count(torch.strided) == 1
    assert seen.count(torch._mkldnn) > 20


def test_packing_does_not_change_the_state_dict():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = model.pack_weights().state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not [name for name, _ in model.named_parameters() if name.endswith("fc1.weight")]


def test_a_state_dict_is_loaded_and_used():
    model, other = network().pack_weights(), network(seed=1)
    model.load_state_dict(other.state_dict())
    assert_close(logits(model), logits(other))
    assert list(model.load_state_dict({}, strict=False).missing_keys) == list(other.state_dict())
    assert_close(logits(model), logits(other))


@pytest.mark.parametrize("mistake", ["missing", "unexpected", "shape"])
def test_a_wrong_state_dict_is_an_error_with_the_name(mistake):
    model = network()
    state, name = model.state_dict(), "stages.0.blocks.0.mlp.fc1.weight"
    if mistake == "missing":
        del state[name]
    elif mistake == "unexpected":
        name += "s"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(1, 1)
    with pytest.raises(RuntimeError, match=name):
        model.pack_weights().load_state_dict(state)


def test_a_published_file_is_loaded_into_packed_weights(tmp_path):
    model = network()
    hierarch.export_weights(model, tmp_path / "x.safetensors")
    other = network(seed=1).pack_weights()
    hierarch.load_weights(other, tmp_path / "x.safetensors")
    assert_close(logits(other), logits(model))


def test_unpacked_it_is_trained_as_before():
    model, same = network(), network()
    names = [name for name, _ in model.named_parameters()]
    model.stages[0].blocks[0].mlp.fc1.weight.requires_grad_(False)
    model.pack_weights().unpack_weights()
    assert [name for name, _ in model.named_parameters()] == names
    frozen = model.stages[0].blocks[0].mlp.fc1.weight
    assert [w for w in model.parameters() if not w.requires_grad] == [frozen]
    for one in (model, same):
        one(IMAGES).square().sum().backward()
    pairs = zip(model.parameters(), same.parameters(), strict=True)
    grads = [(one.grad, wanted.grad) for one, wanted in pairs if one is not frozen]
    assert_same_to_scale(*zip(*grads, strict=True))


def test_the_gradient_of_images_goes_through_packed_weights():
    model, images = network(), IMAGES.clone().requires_grad_()
    [wanted] = torch.autograd.grad(model(images).sum(), images)
    [found] = torch.autograd.grad(model.pack_weights()(images).sum(), images)
    assert_same_to_scale([found], [wanted])


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_has_the_same_weights_and_its_own(how):
    model = network().pack_weights()
    wanted = logits(model)
    if how == "deepcopy":
        other = copy.deepcopy(model)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert_close(logits(other), wanted)
    other.load_state_dict(network(seed=1).state_dict())
    assert_close(logits(model), wanted)


def test_packing_an_unsupported_type_is_an_error_and_changes_nothing():
    model = network()
    model.head.fc.double()  # the last of all
    with pytest.raises(ValueError, match="float64 on cpu"):
        model.pack_weights()
    assert not any(type(layer) is PackedLinear for layer in model.modules())
    packed = network().pack_weights()
    wanted = logits(packed)
    with pytest.raises(ValueError, match=r"float64 on cpu.*unpack_weights"):
        packed.double()
    assert_close(logits(packed.unpack_weights().float()), wanted)
    with torch.device("meta"):
        nowhere = hierarch.build(tiny())
    with pytest.raises(ValueError, match="float32 on meta"):
        nowhere.pack_weights()


def test_a_layer_with_a_hook_is_not_packed():
    model = network()
    layer, seen = model.stages[0].blocks[0].mlp.fc1, []
    layer.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    logits(model.pack_weights())
    assert model.stages[0].blocks[0].mlp.fc1 is layer
    assert len(seen) == 1


def test_a_change_of_an_unpacked_weight_takes_effect():
    model, packed = (network("cosine_window_attention") for _ in range(2))
    packed.pack_weights()
    before = logits(packed)
    for one in (model, packed):
        with torch.no_grad():
            one.stages[0].blocks[0].mixer.cpb_mlp[0].weight.mul_(100)
    assert_close(logits(packed), logits(model))
    assert (logits(packed) - before).abs().max() > 1e-4


@newer_compiler
@pytest.mark.no_cover  # torch's compiler; all other tests here run what is ours
def test_it_is_compiled_and_exported_as_before():
    model = network(stages=SHALLOW)
    wanted = logits(model)
    model.pack_weights()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(logits(compiled), wanted)
    assert_close(logits(torch.export.export(model, (IMAGES,)).module()), wanted)


@newer_compiler
@pytest.mark.no_cover  # as above
@pytest.mark.parametrize("packs", [False, True])
def test_a_program_with_frozen_weights_calls_oneDNN_itself(packs, onednn_faster):
    from torch._inductor import config

    model, seen = network(stages=SHALLOW), set()
    wanted = logits(model)
    if packs:
        model.pack_weights()

    def backend(graph, inputs):
        seen.update(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    with config.patch(freezing=True):
        assert_close(logits(torch.compile(model, backend=backend, fullgraph=True)), wanted)
    assert "mkldnn._linear_pointwise.default" in seen
    assert not [name for name in seen if "hierarch" in name]


def test_autocast_multiplies_in_its_own_type():
    model = network()
    with torch.autocast("cpu"):
        wanted = logits(model)
        assert_close(logits(model.pack_weights()), wanted)


def test_a_packed_network_shows_its_layers_and_can_reset_its_classifier():
    model = network().pack_weights()
    assert "(fc1): PackedLinear(in_features=8, out_features=16, bias=True)" in str(model)
    assert model.get_classifier().weight.shape == (5, 24)
    model.reset_classifier(3)
    assert logits(model).shape == (2, 3)


@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention"])
def test_masks_are_remembered_packed_or_not(mixer):
    model = network(mixer).eval()

    def ways():
        with torch.no_grad():
            steps = engine.explain(model, IMAGES).steps
        return {step.way for step in steps if step.operation.endswith("masks")}

    assert ways() == {"remembered"}
    model.pack_weights()
    assert ways() == {"remembered"}
