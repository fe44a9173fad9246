"""Networks with layers that other libraries wrap, replace, hook, quantize or prune.

The rule: replace any leaf by a wrapper that computes the same, and the network computes the same;
by one that computes something else, and the network computes that. It is tested with the real
libraries, against `engine.disabled()`.
"""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import assert_same, assert_same_to_scale, noise, perturb, tiny
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrizations, prune

import hierarch
from hierarch import engine

HEAD = {"num_classes": 5}
MIXERS = {
    "window_attention": {"head_dim": 4, "window_size": 4, "shift_size": 2},
    "cosine_window_attention": {"head_dim": 4, "window_size": 4, "shift_size": 2},
    "window_mlp": {"head_dim": 4, "window_size": 4, "shift_size": 2},
    "grid_attention": {"head_dim": 4, "window_size": 4},
    "global_attention": {"head_dim": 4},
    "linear_attention": {"head_dim": 4},
    "neighborhood_attention": {"head_dim": 4, "kernel_size": 3},
    "separable_conv": {},
    "token_mlp": {"grid": 10, "hidden_dim": 6},
}
IMAGES = noise(2, 3, 40, 56)


def network(mixer, std=0.1):
    entry = {"type": mixer, **MIXERS[mixer]}
    spec = tiny(head=HEAD, stages=[{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}])
    return perturb(hierarch.build(spec | {"mixer": entry}), std=std)


def gradients(model):
    model.zero_grad()
    images = IMAGES.clone().requires_grad_()
    model(images).square().sum().backward()
    return [images.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_the_engine_changes_nothing(model):
    with torch.no_grad():
        found = model(IMAGES)
        with engine.disabled():
            assert_same(found, model(IMAGES))
    for training in (False, True):
        model.train(training)
        found = gradients(model)
        with engine.disabled():
            assert_same_to_scale(found, gradients(model))
    return model.eval()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_an_adapter_of_peft_computes_the_same_as_when_merged(mixer, dora):
    plain = network(mixer)
    layers = [name for name, layer in plain.named_modules() if type(layer) is nn.Linear]
    config = LoraConfig(
        r=2, lora_alpha=1, target_modules=layers, use_dora=dora, init_lora_weights=False
    )
    with torch.no_grad():
        before = plain(IMAGES)
    model = get_peft_model(plain, config).eval()
    assert_the_engine_changes_nothing(model)
    with torch.no_grad():
        adapted = model(IMAGES)
        assert (adapted - before).abs().max() > 1e-3
        assert_same(model.merge_and_unload()(IMAGES), adapted)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*", "ignore:.*TypedStorage.*")
@pytest.mark.filterwarnings("ignore")  # torch deprecates this quantization, which is still used
@pytest.mark.parametrize("mixer", ["window_attention", "separable_conv"])
def test_dynamic_quantization_finds_the_layers(mixer):
    model = network(mixer)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    swapped = [m for m in quantized.modules() if "dynamic" in type(m).__module__]
    assert len(swapped) == sum(type(m) is nn.Linear for m in model.modules())
    with torch.no_grad():
        found = quantized(IMAGES)
        with engine.disabled():
            assert_same(found, quantized(IMAGES))
        assert 0 < (found - model(IMAGES)).abs().max() < 0.1 * model(IMAGES).abs().max() + 0.1


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.5)


CHANGES = {
    "pruned": pruned,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention", "window_mlp"])
def test_pruned_and_parametrized_layers(mixer, change):
    model = network(mixer)
    with torch.no_grad():
        before = model(IMAGES)
        for layer in list(model.modules()):
            if type(layer) is nn.Linear:
                CHANGES[change](layer)
        if change != "weight_norm":  # which computes the same
            assert (model(IMAGES) - before).abs().max() > 1e-4
    with torch.no_grad():
        found = model(IMAGES)
        with engine.disabled():
            assert_same(found, model(IMAGES))
    if change != "spectral_norm":  # in training, each call goes on with its power iteration
        assert_the_engine_changes_nothing(model)


def test_an_average_of_models():
    model = network("window_attention")
    average = torch.optim.swa_utils.AveragedModel(model)
    other = perturb(copy.deepcopy(model), seed=1)
    average.update_parameters(model)
    average.update_parameters(other)
    assert_the_engine_changes_nothing(average)


class Other(nn.Module):
    """A wrapper of a leaf that computes the same, or something else."""

    def __init__(self, leaf, change):
        super().__init__()
        self.leaf, self.change = leaf, change

    def forward(self, *args, **kwargs):
        out = self.leaf(*args, **kwargs)
        # not a factor, which a norm behind it takes away
        return out + self.change * out.square() if self.change else out


LEAVES = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GELU)


@pytest.mark.parametrize("change", [0.0, 0.5])
@pytest.mark.parametrize("mixer", MIXERS)
def test_each_leaf_may_be_replaced(mixer, change):
    model = network(mixer)
    with torch.no_grad():
        before = model(IMAGES)
    names = [name for name, leaf in model.named_modules() if type(leaf) in LEAVES]
    assert len(names) > 10
    for name in names:
        changed = copy.deepcopy(model)
        if ".cpb_mlp." in name:
            continue  # inside a position bias: tested with all others below
        changed.set_submodule(name, Other(changed.get_submodule(name), change))
        with torch.no_grad():
            found = changed(IMAGES)
            with engine.disabled():
                assert_same(found, changed(IMAGES))
            difference = (found - before).abs().max()
        assert difference > 1e-6 if change else difference < 1e-5, name
    for name in names:
        model.set_submodule(name, Other(model.get_submodule(name), change))
    assert_the_engine_changes_nothing(model)


def test_per_sample_gradients():
    model = network("window_attention")
    weights = dict(model.named_parameters())

    def loss(weights, image):
        return torch.func.functional_call(model, weights, image[None]).square().sum()

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, IMAGES)
    for i, image in enumerate(IMAGES):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        wanted = [weight.grad for weight in weights.values()]
        assert_same_to_scale([found[name][i] for name in weights], wanted)
