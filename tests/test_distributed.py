"""Two processes that train together compute what one computes on the whole batch: by DDP, and by
FSDP2 and FSDP, which hold a half of each weight. The processes are real, and talk by gloo."""

from __future__ import annotations

import contextlib
import warnings
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
from helpers import assert_same, assert_same_to_scale, noise, perturb, tiny
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import hierarch
from hierarch import engine

PROCESSES = 2
IMAGES = noise(4, 3, 40, 56)
STAGES = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]
HEAD = {"head": {"num_classes": 5}}
MAPS = {"out_indices": [0, 1]}
MIXERS = ["window_attention", "cosine_window_attention", "window_mlp"]


def network(mixer, fields, *, checkpoints=False):
    torch.manual_seed(0)
    model = perturb(hierarch.build(tiny(mixer, stages=STAGES, **fields)), std=0.1).train()
    model.set_grad_checkpointing(checkpoints)
    return model


def by_blocks(model):
    for stage in model.stages:
        for block in stage.blocks:
            fully_shard(block)
    return fully_shard(model) or model


def by_stages(model):
    for stage in model.stages:
        if any(True for _ in stage.norm.parameters()):
            fully_shard(stage.norm)  # which runs after the stage
        fully_shard(stage)
    return fully_shard(model) or model


def by_wrappers(model):
    shard = partial(FullyShardedDataParallel, device_id=torch.device("cpu"), use_orig_params=True)
    for i, stage in enumerate(model.stages):
        model.stages[i] = shard(stage)
    return shard(model)


WAYS = {
    "DDP": (DistributedDataParallel, HEAD, False),
    "DDP of maps": (DistributedDataParallel, MAPS, False),
    "DDP, checkpointing": (DistributedDataParallel, HEAD, True),
    "FSDP2 by blocks": (by_blocks, HEAD, False),
    "FSDP2 by blocks, checkpointing": (by_blocks, HEAD, True),
    "FSDP2 of maps, by blocks": (by_blocks, MAPS, False),
    "FSDP2 of maps, by stages": (by_stages, MAPS, False),
    "FSDP by stages": (by_wrappers, HEAD, False),
}


OF_FSDP2 = [way for way in WAYS if way.startswith("FSDP2")]
NOT_HERE = OF_FSDP2 if torch.__version__ < "2.7" else []
"""torch 2.6 asks a CPU for a GPU's streams there."""


def loss_of(outputs):
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(out.square().flatten(1).mean(1).sum() for out in outputs)


def whole(model):
    """While entered, each process of FSDP has all of every weight."""
    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, with_grads=True)
    return contextlib.nullcontext()


def full(tensor):
    """All of a tensor, of which processes of FSDP2 hold parts."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def step(model, images, count):
    """What a network computes before and after a step, and without a gradient; the images are a
    part of `count`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        before = model.eval()(images)
    out = model.train()(images)
    (loss_of(out) * (len(IMAGES) / len(images)) / count).backward()
    with whole(model):
        gradients = [full(weight.grad) for weight in model.parameters() if weight.grad is not None]
    optimizer.step()
    with torch.no_grad():
        after = model.eval()(images)
    return {"outputs": [before, out, after], "gradients": gradients}


def work(rank, folder):
    """What each process does; it writes what it finds to a file."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    seconds = timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=PROCESSES, timeout=seconds
    )
    images = IMAGES.chunk(PROCESSES)[rank]
    found = {}
    for way in [way for way in WAYS if way not in NOT_HERE]:
        make, fields, checkpoints = WAYS[way]
        for mixer in MIXERS:
            model = network(mixer, fields, checkpoints=checkpoints)
            found[way, mixer] = step(make(model), images, len(IMAGES))
    torch.save(found, f"{folder}/{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (str(folder),), PROCESSES)
    return [torch.load(folder / str(rank)) for rank in range(PROCESSES)]


@pytest.mark.parametrize("disabled", [False, True], ids=["engine", "definitions"])
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_compute_what_one_does(found, way, mixer, disabled):
    if way in NOT_HERE:
        pytest.skip("torch 2.6 has no FSDP2 on a CPU")
    with engine.disabled() if disabled else contextlib.nullcontext():
        wanted = step(network(mixer, WAYS[way][1]), IMAGES, len(IMAGES))
    parts = [of_process[way, mixer] for of_process in found]
    for whole, *halves in zip(wanted["outputs"], *(part["outputs"] for part in parts), strict=True):
        assert_same(joined(halves), joined([whole]))
    before, _, after = wanted["outputs"]
    assert (joined([before]) - joined([after])).abs().max() > 1e-2
    for part in parts:
        assert_same_to_scale(part["gradients"], wanted["gradients"])


def joined(parts):
    """The outputs of parts of a batch, as one tensor."""
    maps = [part if isinstance(part, tuple) else (part,) for part in parts]
    return torch.cat([torch.cat(of_parts).flatten() for of_parts in zip(*maps, strict=True)])
