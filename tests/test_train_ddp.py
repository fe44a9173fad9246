"""Two processes (gloo) train as one does at the same batch, by DDP and by FSDP2; each run is the
command itself."""

import json
import os
import subprocess
import sys

import pytest
import train_data
from helpers import sharding

from hierarch.train.folder import RunFolder
from hierarch.train.networks import evaluate
from hierarch.train.settings import Machine


def command(folder, run, strategy, *more, recipe=None):
    """(exit status, stdout, stderr) of a run."""
    (folder / "s.yaml").write_text(json.dumps(train_data.network(drop_path_rate=0.0)))
    fields = {"mix": {}, "precision": "float64", "epochs": 2, "checkpoint_steps": 5}
    (folder / "r.yaml").write_text(json.dumps(train_data.RECIPE | fields | (recipe or {})))
    machine = ("--accelerator", "cpu", "--strategy", strategy)
    devices = "1" if strategy == "auto" else "2"
    options = ("--recipe", "r.yaml", "--run", run, "--devices", devices, *machine, *more)
    arguments = ["train", "s.yaml", *map(str, options)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "hierarch", *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr


DATA = ("--data", "d.npz", "--format", "json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data, and the run of one process."""
    path = tmp_path_factory.mktemp("ddp")
    train_data.npz(path / "d.npz", count=83, held_out=7)  # 10 steps an epoch; 4 and 3 images
    status, _, err = command(path, "auto", "auto", *DATA)
    assert status == 0, err
    return path


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=sharding)])
def test_two_processes_are_one(folder, strategy):
    status, out, err = command(folder, strategy, strategy, *DATA)
    assert status == 0, err
    [report] = json.loads(out)  # of one process alone
    assert report["steps"] == 20
    alone, together = (RunFolder(folder / name).rows() for name in ("auto", strategy))
    assert [row["step"] for row in alone] == [row["step"] for row in together]
    assert sum(row["loss"] != "" for row in alone) == 20
    for one, two in zip(alone, together, strict=True):
        for name in ("lr", "loss", "grad_norm", "val_loss"):
            if one[name]:
                assert abs(float(one[name]) - float(two[name])) < 1e-5, (one["step"], name)
        for name in ("val_top1", "val_top5"):
            assert one[name] == two[name]
    found = evaluate(folder / strategy, str(folder / "d.npz"), machine=Machine(accelerator="cpu"))
    assert found.sizes[0].loss == pytest.approx(report["val_loss"], abs=1e-6)


def test_two_processes_do_not_overwrite_a_run(folder):
    status, _, err = command(folder, "auto", "ddp", *DATA)
    assert status != 0
    assert "auto: holds a run already; give --resume to go on with it" in err


def test_a_broken_image_of_the_second_process_ends_both(tmp_path):
    images = train_data.folder(tmp_path / "images")
    for image in sorted((images / "train").rglob("*.png"))[5:]:
        image.write_bytes(b"none")
    recipe = {"batch_size": 2}
    status, out, err = command(tmp_path, "run", "ddp", "--data", "images", recipe=recipe)
    assert (status != 0, out) == (True, "")
    assert ".png: cannot be read" in err
    assert "--skip-broken takes other images" in err
