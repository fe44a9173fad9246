"""The engine's training on a CPU: autograd's gradients, with less memory kept for them."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import noise, perturb, tiny
from hypothesis import example, given, settings
from strategies import backbone_specs, image_sizes
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrizations

import hierarch
from hierarch import engine
from hierarch.engine import recomputing, training
from hierarch.engine.onednn import onednn_outer
from hierarch.nn import functional
from hierarch.nn.layers import LayerScale, Mlp

HEAD = {"num_classes": 5}
MIXERS = ["window_attention", "cosine_window_attention", "window_mlp"]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Makes tiles small, so that small networks have several, of different sizes."""
    monkeypatch.setattr(training, "TILE_TOKENS", 50)


@pytest.fixture
def ours(monkeypatch, onednn_faster):
    """Records the names of the engine's ways that run in training."""
    seen = []
    for name in ("_Linear", "_Mlp"):
        watch(monkeypatch, training, name, seen)
    watch(monkeypatch, recomputing, "_SelfAttention", seen)
    return seen


def watch(monkeypatch, module, name, seen):
    original = getattr(module, name)

    class Watched:
        @staticmethod
        def apply(*inputs):
            seen.append(name)
            return original.apply(*inputs)

    monkeypatch.setattr(module, name, Watched)


def gradients(model, images):
    model.zero_grad()
    images = images.clone().requires_grad_()
    outputs = model(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(out.square().sum() for out in outputs).backward()
    return {name: p.grad for name, p in model.named_parameters()} | {"images": images.grad}


def assert_close(found, wanted, plain=None):
    """Equal within 1e-5 of the largest entry plus the error of autograd's own, `plain`."""
    for name, one in wanted.items():
        if one is None:
            assert found[name] is None, name
            continue
        scale = max(float(one.abs().max()), 1e-3)
        allowed = 1e-5
        if plain is not None:
            allowed += float((plain[name] - one).abs().max()) / scale
        torch.testing.assert_close(found[name].double() / scale, one / scale, rtol=0, atol=allowed)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("size", [(2, 64, 64), (1, 37, 50), (3, 7, 101)])
def test_gradients_are_those_of_double_precision(mixer, size):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD))).train()
    exact = copy.deepcopy(model).double()
    images = noise(size[0], 3, *size[1:])
    found, wanted = gradients(model, images), gradients(exact, images.double())
    with engine.disabled():
        plain = gradients(model, images)
    assert_close(found, wanted, plain)


ONE_SHIFTED_WINDOW = {
    "type": "window_attention", "head_dim": 4, "window_size": 7, "shift_size": 3,
    "small_map": "pad_shift",
}  # fmt: skip
ONE_LARGE_WINDOW = ONE_SHIFTED_WINDOW | {"window_size": 16, "small_map": "pad"}


@settings(max_examples=25, deadline=None)
@given(backbone_specs(), image_sizes())
@example(hierarch.load(tiny() | {"mixer": ONE_SHIFTED_WINDOW}), (24, 24))
@example(hierarch.load(tiny() | {"mixer": ONE_LARGE_WINDOW}), (24, 24))
def test_any_network(spec, size):
    """Equal within 1e-4 of all gradients plus the error of autograd's own: a network in
    which a norm divides by next to nothing makes much of any rounding."""
    torch.manual_seed(0)  # each example's weights are its own, whatever was tried before
    model = perturb(hierarch.build(spec), std=0.1).eval()
    exact = copy.deepcopy(model).double()
    images = noise(2, spec.stem.in_chans, *size)
    found, wanted = gradients(model, images), gradients(exact, images.double())
    with engine.disabled():
        plain = gradients(model, images)

    def length(tensors):
        return sum(one.square().sum() for one in tensors).sqrt()

    def error(of):
        return length(of[name].double() - one for name, one in wanted.items() if one is not None)

    total = length(one for one in wanted.values() if one is not None)
    assert error(found) <= 1e-4 * total + 1e-6 + error(plain)


@pytest.mark.parametrize("block", ["pre_norm", "single_residual", "parallel"])
def test_a_batch_norm_takes_each_batch_in_once(block):
    spec = tiny(block=block, norm="batch_norm", layer_scale=0.5)
    model = perturb(hierarch.build(spec)).train()
    plain, images = copy.deepcopy(model), noise(2, 3, 64, 64)
    found = gradients(model, images)
    with engine.disabled():
        wanted = gradients(plain, images)
    for one in found:
        torch.testing.assert_close(found[one], wanted[one], rtol=1e-3, atol=1e-3)
    for name, buffer in plain.named_buffers():
        if "running" in name:
            torch.testing.assert_close(model.get_buffer(name), buffer)


def test_presets_at_full_width(ours):
    model = perturb(hierarch.build("swin_tiny", drop_path_rate=0), std=0.02).train()
    exact = copy.deepcopy(model).double()
    images = noise(1, 3, 100, 75)
    found = gradients(model, images)
    assert {name: ours.count(name) for name in set(ours)} == {
        "_SelfAttention": 12, "_Mlp": 12, "_Linear": 4,
    }  # fmt: skip
    assert_close(found, gradients(exact, images.double()))
    assert len(ours) == 28


def an_mlp(dim, *, bias=True):
    spec = hierarch.load(
        {"mixer": "identity", "mlp_bias": bias, "stages": [{"dim": dim, "depth": 1}]}
    )
    return Mlp(spec.plan()[0].blocks[0])


@pytest.mark.parametrize("norm", [None, nn.LayerNorm(12)])
@pytest.mark.parametrize("bias", [True, False])
def test_an_mlp_keeps_its_input_and_one_hidden_layer(norm, bias, ours):
    mlp = an_mlp(12, bias=bias)
    kept = []
    x = noise(2, 5, 15, 12).requires_grad_()
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = functional.mlp(mlp, x, norm)
    assert ours == ["_Mlp"]
    out.sum().backward()
    weights = sum(p.numel() for m in (mlp, norm) if m for p in m.parameters())
    assert sum(t.numel() for t in kept) == weights + 150 * 12 + 150 * 48


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (2, 1, 0, 3), (3, 0, 1, 2)])
def test_an_mlps_input_and_gradient_may_lie_in_memory_in_any_order(order, ours):
    mlp = an_mlp(6)
    norm, exact = nn.LayerNorm(6), copy.deepcopy(mlp).double()
    x, grad = (noise(6, 6, 6, 6, seed=seed).permute(order) for seed in (0, 1))
    found, wanted = (one.detach().requires_grad_() for one in (x, x.double()))
    functional.mlp(mlp, found, norm).backward(grad)
    exact(copy.deepcopy(norm).double()(wanted)).backward(grad.double())
    assert ours == ["_Mlp"]
    torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=0, atol=1e-5)


ORDERS = {
    "by token": lambda rows, columns, seed: noise(rows, columns, seed=seed),
    "by channel": lambda rows, columns, seed: noise(columns, rows, seed=seed).T,
    "with gaps": lambda rows, columns, seed: noise(rows, 2 * columns, seed=seed)[:, ::2],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dims", [(8, 5), (5, 8), (1, 1)])
@pytest.mark.parametrize("tokens", [1, 15, 16, 500, 20_011])
def test_onednn_outer_is_a_sum_of_outer_products(tokens, dims, order):
    left, right = (ORDERS[order](tokens, dim, i) for i, dim in enumerate(dims))
    expected = left.double().T @ right.double()
    found = onednn_outer(left, right)
    assert found.shape == dims
    rounding = torch.finfo(torch.float32).eps * tokens  # of sums of numbers of about 1
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=rounding)
    several = onednn_outer(left[None, None], right[None, None])
    torch.testing.assert_close(several, found, rtol=0, atol=0)


def test_gradients_have_gradients():
    model = perturb(hierarch.build(tiny(head=HEAD))).train()
    exact = copy.deepcopy(model).double()

    def penalty(model, images):
        model.zero_grad()
        images = images.clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(images).square().sum(), images, create_graph=True)
        grad.square().sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    images = noise(2, 3, 32, 32)
    assert_close(penalty(model, images), penalty(exact, images.double()))


def frozen(model):
    model.stages[0].blocks[0].requires_grad_(False)


def hooked(model):
    for module in model.modules():
        module.register_full_backward_hook(lambda *seen: None)


def parametrized(model):
    for module in model.modules():
        if type(module) is nn.Linear:
            parametrizations.weight_norm(module)


def scaled(model):
    for module in model.modules():
        if isinstance(module, Mlp):
            module.act = LayerScale(module.fc1.out_features, init=0.5)


def dropping(model):
    for module in model.modules():
        if isinstance(module, Mlp):
            module.drop = nn.Dropout(0.5).eval()


@pytest.mark.parametrize("change", [frozen, hooked, parametrized, scaled, dropping])
def test_a_modified_model_has_autograds_gradients(change):
    model = perturb(hierarch.build(tiny(head=HEAD))).train()
    change(model)
    exact = copy.deepcopy(model).double()
    images = noise(2, 3, 40, 40)
    assert_close(gradients(model, images), gradients(exact, images.double()))


def test_hooks_are_called_in_training(ours):
    model = perturb(hierarch.build(tiny(head=HEAD))).train()
    seen = []
    model.stages[0].blocks[0].mlp.act.register_forward_hook(
        lambda *call: seen.append(call[2].shape)
    )
    model(noise(2, 3, 64, 64))
    assert seen == [(2, 16, 16, 16)]
    assert "_Mlp" in ours


@pytest.mark.parametrize("watcher", ["double", "autocast", "compiled", "transformed"])
def test_observed_networks_use_autograd(ours, watcher):
    stages = [{"dim": 8, "depth": 2}]  # of a regular and a shifted block: a compiler takes long
    model = perturb(hierarch.build(tiny(stages=stages, head=HEAD))).train()
    images = noise(2, 3, 32, 32)
    if watcher == "double":
        model.double()(images.double())
    elif watcher == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(images)
    elif watcher == "compiled":
        torch.compile(model, backend="eager", fullgraph=True)(images)
        torch.compiler.reset()
    else:
        weights = dict(model.named_parameters())
        loss = lambda w: torch.func.functional_call(model, w, images).square().sum()  # noqa: E731
        torch.func.grad(loss)(weights)
    assert ours == []


def test_training_goes_on_after_an_optimizers_step():
    model = perturb(hierarch.build(tiny(head=HEAD)), std=0.1).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images = noise(2, 3, 32, 32)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(images).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_weight_changed_before_its_gradient_is_an_error():
    model = perturb(hierarch.build(tiny(head=HEAD))).train()
    loss = model(noise(2, 3, 32, 32)).square().sum()
    with torch.no_grad():
        model.stages[0].blocks[0].mlp.fc1.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
