"""Muon beside AdamW: which weights it takes, what a step is, and that runs go on."""

from copy import deepcopy

import pytest
import torch
import train_data
from helpers import needs_muon, tiny
from test_train_loop import assert_equal, trained, weights, without_speed

import hierarch
from hierarch.errors import SpecError, TrainError
from hierarch.train.optim import Schedule, optimizer
from hierarch.train.recipe import load_recipe
from hierarch.train.sharding import load_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(**fields):
    return load_recipe({"epochs": 1, "optimizer": {"type": "muon"} | fields})


def of_muon(model, **fields):
    """The names of the weights that Muon takes."""
    taken = {
        id(parameter)
        for part in optimizer(model, recipe(**fields).optimizer).parts
        if isinstance(part, torch.optim.Muon)
        for group in part.param_groups
        for parameter in group["params"]
    }
    return {name for name, parameter in model.named_parameters() if id(parameter) in taken}


@needs_muon
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_it_takes_the_matrices_of_blocks_and_nothing_else(layer_decay):
    model = hierarch.build(train_data.network(head={"num_classes": 3}))
    layers = ("mixer.qkv", "mixer.proj", "mlp.fc1", "mlp.fc2")
    wanted = {f"stages.{i}.blocks.0.{layer}.weight" for i in (0, 1) for layer in layers}
    assert of_muon(model, layer_decay=layer_decay) == wanted
    both = optimizer(model, recipe(layer_decay=layer_decay).optimizer)
    taken = [id(p) for group in both.param_groups for p in group["params"]]
    assert sorted(taken) == sorted(map(id, model.parameters()))


@needs_muon
def test_kernels_of_convolutions_stay_with_adamw():
    model = hierarch.build(tiny() | {"mixer": "separable_conv", "head": {"num_classes": 3}})
    kernels = {name for name, p in model.named_parameters() if p.ndim > 2 and ".blocks." in name}
    assert kernels
    assert not kernels & of_muon(model)


@needs_muon
def test_a_step_of_muon_is_the_published_one():
    """The gradient's mean made orthogonal, as large as AdamW's steps; here by an exact SVD."""
    model = hierarch.build(train_data.network(head={"num_classes": 3}))
    both = optimizer(model, recipe(lr=0.01, weight_decay=0.0).optimizer)
    weight = model.stages[0].blocks[0].mlp.fc1.weight
    before = weight.detach().clone()
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    weight.grad.normal_()  # of singular values that are not far apart
    u, _, v = torch.linalg.svd(weight.grad, full_matrices=False)
    both.step()
    step = (before - weight.detach()) / (0.01 * 0.2 * max(weight.shape) ** 0.5)
    # Newton-Schulz's singular values lie about 1, and not on it (Jordan et al. 2024)
    along = torch.diagonal(u.T @ step @ v.T)
    assert along.min() > 0.6
    assert along.max() < 1.3
    assert (step - u @ torch.diag(along) @ v).abs().max() < 0.1


@needs_muon
def test_state_and_rates_are_those_of_one_optimizer():
    def made():
        torch.manual_seed(0)
        model = hierarch.build(train_data.network(head={"num_classes": 3}))
        both = optimizer(model, recipe(layer_decay=0.5).optimizer)
        return model, both, Schedule(both, recipe(), steps=10, steps_per_epoch=10)

    def step(model, both, schedule, number):
        schedule.set(number)
        torch.manual_seed(number)
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        both.step()
        both.zero_grad()

    ours, theirs = made(), made()
    for number in range(2):
        step(*ours, number)
    theirs[0].load_state_dict(ours[0].state_dict())
    load_optimizer(theirs[1], deepcopy(ours[1].state_dict()))
    assert len(theirs[1].state) == len(list(theirs[0].parameters()))
    for of_run in (ours, theirs):
        for number in (2, 3):
            step(*of_run, number)
    assert_equal(ours[0].state_dict(), theirs[0].state_dict())
    rates = [group["lr"] for part in theirs[1].parts for group in part.param_groups]
    assert rates == [group["lr"] for group in theirs[1].param_groups]
    assert len({*rates}) == 4


@needs_muon
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    data = str(train_data.npz(tmp_path / "d.npz"))
    fields = {"optimizer": {"type": "muon", "layer_decay": 0.5}, "checkpoint_steps": 2}
    whole = trained(data, tmp_path / "whole", recipe=fields)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "run", recipe=fields, stop_at=5)
    trained(data, tmp_path / "run", recipe=fields, resume=True)
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert without_speed(tmp_path / "run") == without_speed(tmp_path / "whole")
    adam = trained(data, tmp_path / "adam", recipe={"checkpoint_steps": 2})
    assert adam.loss != whole.loss


def test_an_older_torch_is_told(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    model = hierarch.build(train_data.network(head={"num_classes": 3}))
    with pytest.raises(
        TrainError, match=r"optimizer\.type muon needs torch 2\.9 or newer, and thi"
    ):
        optimizer(model, recipe().optimizer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "moun"}, "optimizer.type: should be 'adamw' or 'muon', got 'moun'"),
        ({"momentum": 0.9}, "optimizer.momentum: is of type muon alone, and type is adamw"),
        ({"type": "muon", "momentum": 1.0}, "optimizer.momentum: should be less than 1"),
    ],
)
def test_a_mistake_is_told_with_its_place(fields, message):
    with pytest.raises(SpecError, match=message):
        load_recipe({"epochs": 1, "optimizer": fields})
    assert load_recipe(recipe(momentum=0.9).to_data()).optimizer.momentum == 0.9
