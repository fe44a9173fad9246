"""A run whose process is killed at any moment goes on to the same weights, and leaves no half file.

A killed process cannot be had in one: each run is a process of its own, which starts for seconds.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_data
from safetensors import safe_open
from safetensors.torch import load_file

from hierarch.train.folder import RunFolder

# one process imports what a run needs, and forks a child for each run that is killed
SERVER = """
import os, sys
sys.path.insert(0, {tests!r})
import torch, torchvision, lightning.fabric, hierarch.train.running, hierarch.train.loop
import hierarch.train.scoring, hierarch.report.training, test_train_loop
torch.set_num_threads(1)
from hierarch.cli import main
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["hierarch", *line.rstrip("\\n").split("\\t")]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Starts runs at once, for a process that has imported everything."""

    def __init__(self):
        code = SERVER.format(tests=str(Path(__file__).parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, *arguments):
        self.process.stdin.write("\t".join(map(str, arguments)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self):
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.process.stdin.close()
    made.process.wait()
    made.process.stdout.close()


@pytest.fixture
def command(tmp_path):
    data = train_data.npz(tmp_path / "data.npz")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(train_data.RECIPE | {"checkpoint_steps": 1, "epochs": 4}))
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(train_data.network()))

    def command(run):
        flags = ("--accelerator", "cpu", "--devices", "1", "--resume", "--run", run)
        return ("train", spec, "--data", data, "--recipe", recipe, *flags)

    return command


def whole(run):
    """Every file that is in place is whole."""
    folder = RunFolder(run)
    if folder.checkpoint.exists():
        assert folder.load()["counts"]["step"] >= 1
    for file in run.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            assert list(opened.keys())
    for file in run.glob("*.json"):
        json.loads(file.read_text())
    folder.rows()


def test_twenty_kills_at_random_moments(server, command, tmp_path):
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    server.start(*command(undisturbed))
    begun = time.monotonic()
    assert server.wait() == 0
    length = time.monotonic() - begun
    moments = random.Random(0)
    numbers = itertools.count()
    killed, steps = 0, set()
    while killed < 20:
        child = server.start(*command(run))
        time.sleep(moments.uniform(0.1, 1) * length)
        with contextlib.suppress(ProcessLookupError):  # it came to its end first
            os.kill(child, signal.SIGKILL)
        status = server.wait()
        if run.exists():
            whole(run)
        if status == 0:  # another one is begun
            assert_same_end(run, undisturbed)
            run = tmp_path / f"run{next(numbers)}"
            continue
        assert status == -signal.SIGKILL
        killed += 1
        folder = RunFolder(run)
        steps.add(folder.load()["counts"]["step"] if folder.checkpoint.exists() else 0)
    assert len(steps) > 2, "the kills were all at the same place"
    server.start(*command(run))
    assert server.wait() == 0
    assert_same_end(run, undisturbed)


def assert_same_end(run, undisturbed):
    for name in ("model.safetensors", "best.safetensors"):
        one, other = load_file(run / name), load_file(undisturbed / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    own = {path.name for path in undisturbed.iterdir()}
    assert {path.name for path in run.iterdir()} == own

    def rows(folder):
        return [row | {"images_per_s": ""} for row in RunFolder(folder).rows()]

    assert rows(run) == rows(undisturbed)


DURING = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_train_loop
from hierarch.train import folder
calls = 0

def dying(state, path):
    global calls
    calls += 1
    if calls < 3:
        return whole(state, path)
    with path.open("wb") as file:  # half of it, then the end
        import io, torch
        stream = io.BytesIO()
        torch.save(dict(state), stream)
        file.write(stream.getvalue()[: {share}])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

whole, folder.save_whole = folder.save_whole, dying
test_train_loop.torch.set_num_threads(1)
test_train_loop.trained({data!r}, {run!r}, recipe={{"checkpoint_steps": 1}}, resume=True)
"""


def test_a_kill_during_the_writing_of_a_checkpoint(tmp_path):
    from test_train_loop import assert_equal, trained, weights

    data, run = str(train_data.npz(tmp_path / "data.npz")), tmp_path / "run"
    code = DURING.format(tests=str(Path(__file__).parent), data=data, run=str(run), share=9_000)
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(run.glob(".checkpoint.pt.*"))) == 1  # the half file, never in place
    assert RunFolder(run).load()["counts"]["step"] == 2
    torch.set_num_threads(1)
    recipe = {"checkpoint_steps": 1}
    trained(data, run, recipe=recipe, resume=True)
    trained(data, tmp_path / "whole", recipe=recipe)
    assert_equal(weights(run), weights(tmp_path / "whole"))
    assert not list(run.glob(".checkpoint.pt.*"))
