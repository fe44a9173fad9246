"""FSDP2: two processes (gloo), with a part of every weight each, stop, go on, write whole files.

The processes start once, as torchrun starts them, and do all runs: starting takes longer than a
run.
"""

import os
import shutil
import socket
import warnings

import pytest
import torch
import train_data
from helpers import needs_muon, noise, sharding
from safetensors.torch import load_file
from test_train_loop import CPU, assert_equal, without_speed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from hierarch.errors import HierarchError
from hierarch.train.folder import RunFolder
from hierarch.train.muon import muon
from hierarch.train.networks import open_network
from hierarch.train.running import train
from hierarch.train.settings import Machine
from hierarch.train.sharding import full

pytestmark = [sharding, pytest.mark.usefixtures("one_thread")]

RECIPE = {
    "mix": {},
    "precision": "float64",
    "accumulate": 2,
    "checkpoint_steps": 2,
    "clip_grad_norm": 0.05,  # below the norm of every step
    "optimizer": {"lr": 0.01, "layer_decay": 0.5},
    "evaluate": {"crop_ratio": 1.0, "batch_size": 2},  # 7 images: one process has one batch less
}
MUON = {"optimizer": {"type": "muon"}, "epochs": 1, "checkpoint_steps": 1}
FAILING = {
    "broken": {"data": "images", "recipe": {"epochs": 1, "accumulate": 1}},
    "infinite": {
        "recipe": {
            "optimizer": {"lr": 1e6},
            "clip_grad_norm": None,
            "precision": "float32",
            "accumulate": 1,
            "epochs": 12,
        }
    },
}
"""Runs that all processes have to end together."""


def trained(folder, run, machine, *, data="d.npz", recipe=None, **options):
    return train(
        train_data.network(drop_path_rate=0.0),
        str(folder / data),
        recipe=train_data.RECIPE | RECIPE | (recipe or {}),
        run=folder / run,
        machine=machine,
        **options,
    )


def copying(folder, run, *, at):
    """Copies a run's folder at a step, as it would be left there by a kill. The first process alone
    calls this."""

    def advance(progress):
        if progress.step == at:
            shutil.copytree(folder / run, folder / f"{run}_half")

    return advance


def muon_step(parts):
    """What Muon adds to a matrix, of which each process may have a part."""
    weight, gradient = (noise(6, 10, seed=seed) for seed in (0, 1))
    if parts > 1:
        mesh = init_device_mesh("cpu", (parts,))
        weight, gradient = (distribute_tensor(t, mesh, [Shard(0)]) for t in (weight, gradient))
    before = weight.clone()
    parameter = torch.nn.Parameter(weight)
    parameter.grad = gradient
    muon([{"params": [parameter], "lr": 1.0, "weight_decay": 0.0}], momentum=0.9).step()
    return full((parameter - before).detach())


def work(rank, folder, port):
    """What each process does; the message of a run that fails goes to a file."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "here"}
    sizes = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in (ranks | sizes | address).items()}
    machine = Machine(accelerator="cpu", devices="2", strategy="fsdp2")

    trained(folder, "whole", machine, advance=copying(folder, "whole", at=5))
    trained(folder, "whole_half", machine, resume=True)
    if hasattr(torch.optim, "Muon"):
        trained(folder, "muon", machine, recipe=MUON, advance=copying(folder, "muon", at=2))
        trained(folder, "muon_half", machine, recipe=MUON, resume=True)
        torch.save(muon_step(parts=2), folder / f"muon{rank}.pt")
    trained(
        folder, "bfloat16", machine, recipe={"precision": "bfloat16", "epochs": 1, "accumulate": 1}
    )
    for name, options in FAILING.items():
        with pytest.raises(HierarchError) as error:
            trained(folder, name, machine, **options)
        (folder / f"{name}{rank}.txt").write_text(str(error.value))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fsdp")
    train_data.npz(path / "d.npz")
    images = train_data.folder(path / "images")
    (images / "val" / "bee" / "001.png").write_bytes(b"none")  # of the second process alone
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (path, port), 2)
    trained(path, "alone", CPU)
    return path


def test_two_processes_are_one(folder):
    alone, together = (RunFolder(folder / name) for name in ("alone", "whole"))
    assert len(alone.rows()) == len(together.rows()) == 12
    for one, two in zip(alone.rows(), together.rows(), strict=True):
        assert not one["grad_norm"] or float(one["grad_norm"]) > RECIPE["clip_grad_norm"]
        for name in set(one) - {"images_per_s"}:
            assert one[name] == two[name] or abs(float(one[name]) - float(two[name])) < 1e-5
    for file in ("model.safetensors", "best.safetensors"):
        one, two = (load_file(run.path / file) for run in (alone, together))
        assert one.keys() == two.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("run", ["whole", pytest.param("muon", marks=needs_muon)])
def test_a_stopped_run_goes_on_to_the_same_bits(folder, run):
    for file in ("model.safetensors", "best.safetensors"):
        assert_equal(*(load_file(folder / of_run / file) for of_run in (run, f"{run}_half")))
    assert without_speed(folder / run) == without_speed(folder / f"{run}_half")


@needs_muon
def test_muon_takes_a_matrix_as_one_whichever_process_has_a_part(folder):
    wanted = muon_step(parts=1)
    for rank in (0, 1):  # in bfloat16, hence the tolerance
        torch.testing.assert_close(torch.load(folder / f"muon{rank}.pt"), wanted, rtol=0, atol=0.02)


def test_a_checkpoint_is_whole(folder):
    """It has the keys, shapes and types of one process's, and no part of a tensor."""
    alone, together = (RunFolder(folder / name).load() for name in ("alone", "whole"))

    def shapes(value):
        if isinstance(value, torch.Tensor):
            assert type(value) is torch.Tensor
            return value.shape, value.dtype
        if isinstance(value, dict):
            return {name: shapes(held) for name, held in value.items()}
        return [shapes(held) for held in value] if isinstance(value, list) else None

    for name in ("model", "model_ema", "optimizer"):
        assert shapes(alone[name]) == shapes(together[name])
    assert alone["averaged"] == together["averaged"] == 9
    assert not isinstance(together["model"]["head.fc.weight"], DTensor)
    kept = load_file(folder / "whole" / "model.safetensors")
    held = open_network(folder / "whole").model.state_dict()  # in float32
    assert_equal(held, {name: value.to(held[name].dtype) for name, value in kept.items()})


def test_bfloat16_trains_weights_of_float32(folder):
    kept = load_file(folder / "bfloat16" / "model.safetensors")
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float32}
    assert RunFolder(folder / "bfloat16").results.exists()


def test_all_processes_end_together(folder):
    messages = {name: [(folder / f"{name}{r}.txt").read_text() for r in (0, 1)] for name in FAILING}
    assert "bee/001.png: cannot be read" in messages["broken"][1]
    assert messages["broken"][0].startswith("an image of another process cannot be read")
    assert messages["infinite"][0] == messages["infinite"][1]
    assert "not finite, first in the" in messages["infinite"][0]
    state = RunFolder(folder / "infinite").load()
    assert all(torch.isfinite(value).all() for value in state["model"].values())
