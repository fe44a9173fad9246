"""Gradient checkpointing, and training in bfloat16."""

from __future__ import annotations

import pytest
import torch
from helpers import noise, perturb, tiny
from torch.autograd.graph import saved_tensors_hooks

import hierarch

HEAD = {"num_classes": 5}
WINDOWED = ["window_attention", "cosine_window_attention", "window_mlp"]


def trained(per, mixer="window_attention", **fields):
    torch.manual_seed(0)
    model = perturb(hierarch.build(tiny(mixer, head=HEAD, **fields))).train()
    if per:
        model.set_grad_checkpointing(per=per)
    return model


def gradients(model, images):
    """The gradients of a loss, with a fixed sequence of random numbers."""
    torch.manual_seed(0)
    model.zero_grad()
    loss = model(images).float().square().mean()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


def kept(model, images):
    """Bytes of intermediate results that are saved for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(images)
    del out
    return sum(found.values())


@pytest.mark.parametrize("per", ["block", "stage"])
@pytest.mark.parametrize("mixer", WINDOWED)
def test_gradients_are_the_same_as_without_checkpointing(per, mixer):
    images = noise(3, 3, 61, 83)
    rates = {"drop_path_rate": 0.3, "drop_rate": 0.1}
    expected = gradients(trained(None, mixer, **rates), images)
    found = gradients(trained(per, mixer, **rates), images)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_checkpointing_keeps_less_for_the_backward_pass():
    images = noise(2, 3, 96, 96)
    everything, blocks, stages = (kept(trained(per), images) for per in (None, "block", "stage"))
    assert blocks < everything / 3
    assert stages < blocks * 0.8


def test_checkpointing_is_turned_on_and_off():
    images = noise(1, 3, 64, 64)
    model = trained(None)
    everything = kept(model, images)
    model.set_grad_checkpointing(True, "stage")
    assert kept(model, images) < everything
    model.set_grad_checkpointing(False)
    assert kept(model, images) == everything
    model.set_grad_checkpointing(True)
    blocks = kept(model, images)
    model.set_grad_checkpointing(per="block")
    assert kept(model, images) == blocks


def test_inference_is_not_checkpointed():
    model, images = trained("stage"), noise(1, 3, 64, 64)
    assert kept(model.eval(), images) == kept(trained(None).eval(), images)


def test_checkpointing_per_anything_else_is_an_error():
    with pytest.raises(ValueError, match="per='layer' should be 'block' or 'stage'"):
        hierarch.build(tiny()).set_grad_checkpointing(True, "layer")


def alike(found, expected):
    """The cosine between two lists of gradients."""
    one, other = (torch.cat([grad.flatten() for grad in grads]) for grads in (found, expected))
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


@pytest.mark.parametrize("per", [None, "block", "stage"])
@pytest.mark.parametrize("mixer", WINDOWED)
def test_bfloat16_trains(per, mixer):
    images = noise(3, 3, 61, 83)
    _, expected = gradients(trained(per, mixer), images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, found = gradients(trained(per, mixer), images)
    assert loss.isfinite()
    assert {grad.dtype for grad in found} == {torch.float32}
    assert alike(found, expected) > 0.99
    # a temperature's few numbers are sums in which nearly everything cancels
    assert all(alike([one], [wanted]) > 0.9 for one, wanted in zip(found, expected, strict=True))


@pytest.mark.parametrize("mixer", [*WINDOWED, "grid_attention"])
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_equals_float32_up_to_rounding(mixer, training):
    shift = {} if mixer == "grid_attention" else {"shift_size": 3}
    entry = {"type": mixer, "head_dim": 4, "window_size": 7, **shift}
    model = perturb(hierarch.build(tiny() | {"mixer": entry})).train(training)
    images = noise(2, 3, 61, 83)
    with torch.set_grad_enabled(training):
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(images)
    for one, wanted in zip(found, expected, strict=True):
        scale = float(wanted.detach().abs().max())
        torch.testing.assert_close(one.float(), wanted, rtol=0, atol=0.03 * scale)
