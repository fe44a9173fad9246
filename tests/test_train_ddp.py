"""Two processes (gloo) train as one does at the same batch; each run is the command itself."""

import json
import os
import subprocess
import sys

import pytest
import train_data

from hierarch.train.folder import RunFolder


def command(folder, run, processes, *more, recipe=None):
    """(exit status, stdout, stderr) of a run."""
    (folder / "s.yaml").write_text(json.dumps(train_data.network(drop_path_rate=0.0)))
    fields = {"mix": {}, "precision": "float64", "epochs": 2, "checkpoint_steps": 5}
    (folder / "r.yaml").write_text(json.dumps(train_data.RECIPE | fields | (recipe or {})))
    strategy = ("--strategy", "ddp") if processes > 1 else ()
    options = ("--recipe", "r.yaml", "--run", run, "--accelerator", "cpu", *strategy, *more)
    arguments = ["train", "s.yaml", "--devices", str(processes), *map(str, options)]
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ddp")
    train_data.npz(path / "d.npz", count=83, held_out=7)  # 10 steps an epoch; 4 and 3 images
    return path


def test_two_processes_are_one(folder):
    data = ("--data", "d.npz", "--format", "json")
    for processes in (1, 2):
        status, out, err = command(folder, f"run{processes}", processes, *data)
        assert status == 0, err
        [report] = json.loads(out)  # of one process alone
        assert report["steps"] == 20
    alone, together = (RunFolder(folder / f"run{n}").rows() for n in (1, 2))
    assert [row["step"] for row in alone] == [row["step"] for row in together]
    assert sum(row["loss"] != "" for row in alone) == 20
    for one, two in zip(alone, together, strict=True):
        for name in ("lr", "loss", "grad_norm", "val_loss"):
            if one[name]:
                assert abs(float(one[name]) - float(two[name])) < 1e-5, (one["step"], name)
        for name in ("val_top1", "val_top5"):
            assert one[name] == two[name]
    status, _, err = command(folder, "run2", 2, *data)
    assert status != 0
    assert "run2: holds a run already; give --resume to go on with it" in err


def test_a_broken_image_of_the_second_process_ends_both(tmp_path):
    images = train_data.folder(tmp_path / "images")
    for image in sorted((images / "train").rglob("*.png"))[5:]:
        image.write_bytes(b"none")
    recipe = {"batch_size": 2}
    status, out, err = command(tmp_path, "run", 2, "--data", "images", recipe=recipe)
    assert (status != 0, out) == (True, "")
    assert ".png: cannot be read" in err
    assert "--skip-broken takes other images" in err
