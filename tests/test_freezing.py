"""`Backbone.freeze`: the first stages are not trained, inside wrappers, too."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from helpers import noise, perturb, tiny
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel

import hierarch

IMAGES = noise(2, 3, 40, 40)
POSITION = {"position_embedding": {"type": "absolute", "grid": 10}}
FIRST = ("stem.", "position_embedding.", "stages.0.", "stages.1.")


def network(mixer="pooling", **fields):
    fields = {"drop_rate": 0.1, "drop_path_rate": 0.1, **POSITION, **fields}
    return perturb(hierarch.build(tiny() | fields | {"mixer": mixer}))


def trained(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def step(model, inputs=IMAGES):
    model.zero_grad()
    outputs = model(inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(out.square().sum() for out in outputs).backward()
    return {name for name, weight in model.named_parameters() if weight.grad is not None}


def test_the_stem_and_the_first_stages_get_no_gradients_and_stay_in_eval_mode():
    model = network({"type": "window_attention", "head_dim": 4, "window_size": 4}).train()
    names = trained(model)
    model.freeze(stages=2)
    last = {name for name in names if not name.startswith(FIRST)}
    for _ in range(2):
        assert trained(model) == last == step(model)
        training = {name for name, module in model.named_modules() if module.training}
        assert {"stages.2", "stages.2.blocks.0.mlp.drop"} < training
        frozen = ("stem", "position_embedding", "drop", "stages.0", "stages.1")
        assert not any(name.startswith(frozen) for name in training)
        model = copy.deepcopy(model).eval().train()


def test_what_is_frozen_computes_the_same_each_time():
    model = network().train()
    model.freeze(stages=2)
    # the first map is not dropped from; the last is
    one, two = model(IMAGES), model(IMAGES)
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[2], two[2])


def test_fewer_stages_or_none_are_trained_again():
    model = network().train()
    names = trained(model)
    model.stages[2].requires_grad_(False)  # by someone else
    others = trained(model)
    model.freeze(stages=2)
    model.freeze(stages=0)
    assert trained(model) == {n for n in others if not n.startswith(("stem", "position"))}
    assert model.stages[1].blocks[0].training
    model.freeze(stages=-1)
    assert trained(model) == others < names
    assert all(module.training for module in model.modules())


def test_thawed_stages_take_the_mode_of_the_network():
    model = network().eval()
    model.freeze(stages=3)
    model.freeze(stages=-1)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("stages", [-2, 4])
def test_other_numbers_are_refused(stages):
    with pytest.raises(ValueError, match=f"stages={stages} should be from -1 to 3"):
        network().freeze(stages)


def test_a_classifier_on_frozen_stages():
    model = network(head={"num_classes": 5}).train()
    model.freeze(stages=3)
    assert step(model) == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}


WRAPPERS = {
    "torch.compile": lambda module: torch.compile(module, backend="eager"),
    "checkpoint_wrapper": checkpoint_wrapper,
}


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of torch.compile's own
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_stages_and_a_wrapped_network(wrapper):
    model = network(stages=[{"dim": 8, "depth": 1}, {"dim": 16, "depth": 1}]).train()
    model.stages[0] = WRAPPERS[wrapper](model.stages[0])
    model.freeze(stages=1)
    outer = WRAPPERS[wrapper](model).eval().train()
    assert {name.split("stages.")[1][0] for name in step(outer)} == {"1"}
    one, two = outer(IMAGES), outer(IMAGES)
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


def test_ddp_waits_for_no_gradient_of_a_frozen_stage(tmp_path):
    model = network()
    model.freeze(stages=2)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model).train()
        assert not model.stages[1].blocks[0].training
        assert step(parallel) == step(parallel) == trained(parallel)
    finally:
        dist.destroy_process_group()


def test_recomputed_stages_that_are_frozen_are_not_recomputed():
    model = network().train()
    model.freeze(stages=2)
    wanted = step(model)
    model.set_grad_checkpointing()
    assert step(model) == wanted
