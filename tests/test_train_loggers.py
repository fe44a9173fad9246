"""`--log`, with the packages themselves, whose files are read back by their own readers.

mlflow and wandb are not among the packages for tests: each brings dozens of others. Where they are
installed they are tested, each in a process of its own, since both leave threads and settings.
"""

import json
import os
import struct
import subprocess
import sys

import pytest
import train_data

from hierarch.train.folder import RunFolder

RECIPE = train_data.RECIPE | {"epochs": 1}
METRICS = ("loss", "lr", "grad_norm", "val_loss", "val_top1")


@pytest.fixture
def files(tmp_path):
    train_data.npz(tmp_path / "d.npz")
    (tmp_path / "r.yaml").write_text(json.dumps(RECIPE))
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(train_data.network(name=name)))
    return tmp_path


def command(files, *arguments, **environment):
    """(exit status, stderr) of `hierarch train`."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV_"))}
    options = ("--data", "d.npz", "--recipe", "r.yaml", "--accelerator", "cpu", "--devices", "1")
    done = subprocess.run(
        [sys.executable, "-m", "hierarch", "train", *arguments, *options, "--run", "runs"],
        cwd=files,
        env=plain | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stderr


def written(run):
    """{metric: [(step, value)]} of metrics.csv."""
    rows = RunFolder(run).rows()
    return {
        name: [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        for name in METRICS
    }


def assert_logged(found, run):
    for name, values in written(run).items():
        assert values
        assert [step for step, _ in found[name]] == [step for step, _ in values]
        assert [value for _, value in found[name]] == pytest.approx([v for _, v in values])


def test_tensorboard(run, files, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(files)
    options = ("--data", "d.npz", "--recipe", "r.yaml", "--accelerator", "cpu", "--devices", "1")
    status, _, err = run("train", "one.yaml", *options, "--run", "runs", "--log", "tensorboard")
    assert status == 0, err
    events = EventAccumulator(str(files / "runs" / "tensorboard")).Reload()
    found = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in METRICS}
    assert_logged(found, files / "runs")


def records(path):
    """The records of a .wandb file: a log of LevelDB's form, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, at, parts = path.read_bytes(), 7, b""
    assert raw[:4] == b":W&B"
    while at < len(raw):
        if 32768 - at % 32768 < 7:  # no room for a header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        parts += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_wandb_offline(files):
    pytest.importorskip("wandb", reason="wandb and what it brings are large, and not for tests")
    specs = ("one.yaml", "two.yaml")
    status, err = command(
        files, *specs, "--log", "wandb", WANDB_MODE="offline", WANDB_SILENT="true"
    )
    assert status == 0, err
    for name in ("one", "two"):
        [path] = (files / "runs" / name / "wandb").glob("offline-run-*/*.wandb")
        found = {metric: [] for metric in METRICS}
        ended = False
        for record in records(path):
            ended |= record.HasField("exit")
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            for metric in set(found) & set(values):
                found[metric].append((values["trainer/global_step"], values[metric]))
        assert_logged(found, files / "runs" / name)
        assert ended


def mlflow_runs(files, uri):
    """{name: (status, metrics)} of the runs in a store, by mlflow's own client."""
    code = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
[experiment] = client.search_experiments(filter_string="name = 'hierarch'")
runs = {}
for run in client.search_runs([experiment.experiment_id]):
    metrics = {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
               for name in sys.argv[2:]}
    runs[run.info.run_name] = run.info.status, metrics
print(json.dumps(runs))
"""
    arguments = [sys.executable, "-c", code, uri, *METRICS]
    environment = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true"}
    done = subprocess.run(
        arguments, cwd=files, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("uri", ["file:store", None])
def test_mlflow(files, uri):
    """A store of files, which mlflow asks to be allowed, and its own default, a database."""
    pytest.importorskip("mlflow", reason="mlflow and what it brings are large, and not for tests")
    store = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_FILE_STORE": "true"} if uri else {}
    status, err = command(files, "one.yaml", "--log", "mlflow", **store)
    assert status == 0, err
    [(name, (state, found))] = mlflow_runs(files, uri or "sqlite:///mlflow.db").items()
    assert (name, state) == ("runs", "FINISHED")
    assert_logged(found, files / "runs")


def test_a_store_that_mlflow_refuses_is_one_line(files):
    pytest.importorskip("mlflow", reason="mlflow and what it brings are large, and not for tests")
    environment = {"MLFLOW_TRACKING_URI": "file:store", "MLFLOW_ALLOW_FILE_STORE": "false"}
    status, err = command(files, "one.yaml", "--log", "mlflow", **environment)
    assert status == 2
    assert "error: --log mlflow: " in err
    assert "Traceback" not in err
