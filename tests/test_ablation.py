"""Grids of runs: read, worked out, run here and by other executors, and told."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import train_data

import hierarch
from hierarch import needs
from hierarch.ablation.executors import Processes, Ray, Submitit
from hierarch.ablation.plan import plan
from hierarch.ablation.plotting import plot
from hierarch.ablation.running import ablate, read_results
from hierarch.errors import DataError, SpecError, TrainError
from hierarch.report.ablation import AblationReport, ArmRuns, CellRun
from hierarch.report.formats import FORMATS, text
from hierarch.spec.claim import claim

SHIFTED = [
    {"type": "window_attention", "head_dim": 4, "window_size": 4, **shift}
    for shift in ({}, {"shift_size": 2})
]
RECIPE = train_data.RECIPE | {"epochs": 1}
GRID = {
    "name": "shifting",
    "base": train_data.network(mixer=SHIFTED, stages=[{"dim": 8, "depth": 2}]),
    "recipe": RECIPE,
    "seeds": [0, 3],
    "arms": [{"name": "shifted"}, {"name": "regular", "set": {"mixer.shift_size": 0}}],
}
HERE = {"accelerator": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(train_data.npz(tmp_path_factory.mktemp("data") / "d.npz"))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """A finished grid, and what was told while it ran."""
    folder = tmp_path_factory.mktemp("made") / "run"
    told = []
    report = ablate(
        GRID,
        data,
        run=folder,
        executor=Processes(2),
        machine=HERE,
        threads=1,
        advance=lambda done, total, beside: told.append((done, total, beside)),
    )
    return folder, report, told


def weights(run):
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted(Path(run).rglob("model.safetensors"))
    }


def test_arms_are_the_base_but_for_what_they_say():
    grid = GRID | {
        "arms": [
            {"name": "shifted"},
            {"name": "pooling", "mixer": "pooling", "set": {"mlp_ratio": 3}},
            {"name": "swin", "spec": "swin_tiny", "recipe": {"optimizer.lr": 0.1}},
        ]
    }
    planned = plan(grid, classes=3)
    base, pooling, swin = planned.arms
    assert base.spec == hierarch.load(GRID["base"] | {"head": {"num_classes": 3}})
    assert pooling.spec.mixer[0].type == "pooling"
    assert pooling.difference == ("stage 0: pooling for window_attention; mlp_ratio 2 → 3",)
    assert swin.spec.head.num_classes == 3
    assert (base.recipe.optimizer.lr, swin.recipe.optimizer.lr) == (0.001, 0.1)
    assert swin.difference[-1].startswith("recipe optimizer: ")
    assert (planned.reference, planned.seeds) == ("shifted", (0, 3))
    assert plan(json.loads(json.dumps(planned.grid))).arms == planned.arms


@pytest.mark.parametrize("budget", ["macs", "params"])
def test_arms_cost_what_the_base_does(budget):
    arms = [{"name": "base"}, {"name": "pooling", "mixer": "pooling"}]
    one = {"set": {"stages": [{"dim": 64, "depth": 4}]}, "move": ["widths", "ratio"]}
    arms += [{"name": "one_stage", **one}]
    grid = GRID | {"base": "swin_tiny", "match": budget, "arms": arms, "at": 64}
    planned = plan(grid, classes=10)
    costs = [
        claim(arm.spec, (64, 64)).macs
        if budget == "macs"
        else hierarch.measure(arm.spec, [64]).params
        for arm in planned.arms
    ]
    assert all(math.isclose(cost, costs[0], rel_tol=0.01) for cost in costs)
    free = plan(grid | {"match": "none"}, classes=10)
    assert [arm.spec.stages[0].dim for arm in free.arms] == [96, 96, 64]


def test_files_are_found_from_the_grids_folder(tmp_path):
    (tmp_path / "net.yaml").write_text(json.dumps(GRID["base"]))
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    (tmp_path / "grid.yaml").write_text(
        json.dumps(GRID | {"base": "net.yaml", "recipe": "recipe.yaml"})
    )
    assert plan(tmp_path / "grid.yaml").arms == plan(GRID).arms


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [0, 1]", "seed: [0, 1]", "6:1: seed: unknown key 'seed', did you mean 'seeds'?"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "6:8: seeds: should be different from each other"),
        ("seeds: [0, 1]", "seeds: []", "6:8: seeds: should have at least 1 entry"),
        ("name: b", "name: a", "9:11: arms[1].name: is the name of two arms, got 'a'"),
        ("name: b", "name: ../b", "9:11: arms[1].name: should be letters, digits and any of"),
        ("pooling", "poling", "9:5: arms[1] (b): unknown mixer 'poling', did you mean 'pooling'?"),
        ("mixer: pooling", "match: flops", "10:12: arms[1].match: should be 'macs', 'params' or"),
        (
            "mixer: pooling",
            "move: [heads]",
            "10:12: arms[1].move[0]: should be 'widths', 'depths' or",
        ),
        (
            "mixer: pooling",
            "move: [widths, widths]",
            "arms[1].move: what may move are widths, depths",
        ),
        ("mixer: pooling", "set: {depth: 3}", "9:5: arms[1] (b): depth: unknown key 'depth'"),
        ("mixer: pooling", "set: {stages.7.dim: 3}", "arms[1] (b): --set stages.7.dim: there is"),
        ("mixer: pooling", "recipe: {lr: 3}", "9:5: arms[1] (b): lr: unknown key 'lr'"),
        ("mixer: pooling", "spec: nosuch.yaml", "10:11: arms[1].spec: nosuch.yaml: no such file"),
        ("head_dim: 4", "head_dim: 5", "4:18: stages[0].dim: dim=8 is not divisible by head_dim=5"),
        ("epochs: 1", "epochs: 0", "5:18: epochs: should be greater than or equal to 1"),
        ("reference: b", "reference: c", "11:12: reference: should be the name of an arm"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, old, new, message):
    path = tmp_path / "grid.yaml"
    good = """name: g
base:
  mixer: {type: window_attention, head_dim: 4}
  stages: [{dim: 8, depth: 1}]
recipe: {epochs: 1}
seeds: [0, 1]
arms:
  - name: a
  - name: b
    mixer: pooling
reference: b
"""
    path.write_text(good)
    plan(path)
    assert old in good
    path.write_text(good.replace(old, new))
    with pytest.raises(SpecError) as caught:
        plan(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")


def test_a_grid_runs_whole(made):
    folder, report, told = made
    assert [arm.name for arm in report.arms] == ["shifted", "regular"]
    for arm in report.arms:
        assert [run.seed for run in arm.runs] == [0, 3]
        for run in arm.runs:
            results = json.loads((folder / arm.name / f"seed-{run.seed}/results.json").read_text())
            assert (run.top1, run.steps) == (results["val_top1"], 3)
        assert arm.macs == hierarch.measure(plan(GRID, classes=3).arms[0].spec, [32]).sizes[0].macs
    assert report.against["regular"].word == "too few seeds"
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][:2] == (4, 4)
    assert {file.name for file in folder.iterdir() if file.is_file()} == {
        *("grid.yaml", "results.json", "results.csv", "results.md", "results.tex"),
        *("results.svg", "runs.csv", ".lock"),
    }


def test_a_run_is_what_train_makes_of_it(made, data, tmp_path):
    folder, _, _ = made
    code = (
        "import torch, sys, json; torch.set_num_threads(1);"
        "from hierarch.train.running import train; from hierarch.train.settings import Machine;"
        "spec, recipe, data, run = map(json.loads, sys.argv[1:]);"
        "train(spec, data, recipe=recipe, run=run, machine=Machine('cpu', '1'))"
    )
    regular = GRID["base"] | {"mixer": [SHIFTED[0]] * 2, "head": {"num_classes": 3}}
    values = (regular, RECIPE | {"seed": 3}, data, str(tmp_path / "run"))
    code = code.replace("Machine('cpu', '1')", "Machine(accelerator='cpu', devices='1')")
    subprocess.run([sys.executable, "-c", code, *map(json.dumps, values)], check=True)
    alone = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert alone == (folder / "regular" / "seed-3" / "model.safetensors").read_bytes()


def test_what_is_finished_is_not_run_again_and_more_seeds_are(made, data, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(made[0], folder)
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("model.safetensors")}
    notes = []
    report = ablate(
        GRID | {"seeds": [0, 3, 4]},
        data,
        run=folder,
        machine=HERE,
        threads=1,
        executor=Processes(2),
        note=notes.append,
    )
    assert notes == [f"{folder}: 4 of 6 runs are finished already"]
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert [len(arm.top1) for arm in report.arms] == [3, 3]
    assert report.against["regular"].word != "too few seeds"
    with pytest.raises(TrainError, match="seed-0: its recipe differs from that of this command"):
        ablate(GRID | {"recipe": RECIPE | {"epochs": 2}}, data, run=folder, machine=HERE)
    with pytest.raises(TrainError, match="seed-0: its spec differs from that of this command"):
        ablate(GRID | {"base": GRID["base"] | {"mlp_ratio": 1}}, data, run=folder, machine=HERE)


@pytest.mark.parametrize("on", ["submitit", "ray"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_other_executors_come_to_the_same_weights(on, made, data, tmp_path):
    local = {"submitit": lambda: Submitit(jobs=1, cluster="local", poll=0.1), "ray": Ray}
    executor = local[on]()
    try:
        grid = GRID | {"seeds": [0]}
        report = ablate(
            grid, data, run=tmp_path / "run", machine=HERE, threads=1, executor=executor
        )
    finally:
        if on == "ray":
            import ray

            ray.shutdown()
    assert report.failed == []
    expected = {k: v for k, v in weights(made[0]).items() if "seed-0" in k}
    assert len(expected) == 2
    assert weights(tmp_path / "run") == expected


def test_a_failed_arm_is_told_and_stops_no_other(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = {"name": "five_channels", "set": {"stem.in_chans": 5}}
    grid = GRID | {"seeds": [0], "arms": [bad, GRID["arms"][1]], "reference": "regular"}
    Path("grid.yaml").write_text(json.dumps(grid))
    command = ("ablate", "grid.yaml", "--data", data, "--accelerator", "cpu", "--threads", "1")
    status, out, err = run(*command, "--format", "json")
    assert status == 1
    found = json.loads(out)
    tops = {arm["name"]: arm["runs"][0]["top1"] for arm in found["arms"]}
    assert tops["five_channels"] is None
    assert tops["regular"] is not None
    [failed] = [arm["runs"][0]["failed"] for arm in found["arms"] if arm["runs"][0]["failed"]]
    assert "set spec.stem.in_chans to 1 or 3" in failed
    assert "five_channels, seed 0 failed: " in err
    assert Path("runs/shifting/five_channels/seed-0.failed").read_text().strip() == failed
    status, out, _ = run("ablate", "runs/shifting/results.json")
    assert status == 1
    assert "failed: 1, for these reasons" in out
    status, out, _ = run("ablate", "runs/shifting/grid.yaml", "--format", "json", *command[2:])
    assert json.loads(out)["arms"] == found["arms"]


def test_a_grid_that_is_killed_goes_on(made, data, tmp_path):
    (tmp_path / "grid.yaml").write_text(json.dumps(GRID | {"seeds": [0]}))
    command = [sys.executable, "-m", "hierarch", "ablate", "grid.yaml", "--data", data]
    options = ["--accelerator", "cpu", "--threads", "1", "--run", "run"]
    process = subprocess.Popen([*command, *options], cwd=tmp_path, stdout=subprocess.DEVNULL)
    first = tmp_path / "run" / "shifted" / "seed-0"
    until(lambda: (first / "results.json").exists())
    until(lambda: (tmp_path / "run" / "regular" / "seed-0" / "run.json").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not cells_of(tmp_path))  # the cell's process ends by itself
    before = (first / "model.safetensors").stat().st_mtime_ns
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "1 of 2 runs are finished already" in done.stderr
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    expected = {k: v for k, v in weights(made[0]).items() if "seed-0" in k}
    assert weights(tmp_path / "run") == expected


def until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def cells_of(folder):
    """The processes of cells that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            here = os.readlink(process / "cwd")
        except OSError:
            continue
        if b"hierarch.ablation.cells" in words and here == str(folder):
            found.append(process)
    return found


def report(**tops):
    """A report on arms with these accuracies, one for each seed."""
    return AblationReport(
        name="grid",
        data="images",
        held_out_images=1000,
        reference=next(iter(tops)),
        arms=tuple(
            ArmRuns(
                name=name,
                difference=("dim 8 → 16",),
                params=10,
                macs=10**9,
                size=(32, 32),
                runs=tuple(
                    CellRun(seed=i, top1=top1, images_per_s=100.0) for i, top1 in enumerate(values)
                ),
            )
            for name, values in tops.items()
        ),
        grid={},
        about={},
    )


TOLD = report(
    first=[0.50, 0.52, 0.51],
    better=[0.60, 0.62, 0.611],
    worse=[0.40, 0.42, 0.411],
    same=[0.49, 0.53, 0.51],
    few=[0.9, 0.9],
    none=[],
)


def test_a_report_says_what_is_shown():
    [table, *_] = TOLD.blocks()
    rows = {row["network"]: row for row in table.rows}
    shown = {name: row["shown"] for name, row in rows.items()}
    assert shown == {
        "first": "reference",
        "better": "better",
        "worse": "worse",
        "same": "no difference shown",
        "few": "too few seeds",
        "none": "no result",
    }
    assert rows["first"]["top-1"] == "51.00 ± 1.00"
    assert rows["better"]["difference"] == "+10.03"
    for format in FORMATS:
        assert "no difference shown" in text(TOLD, format)


def test_a_report_comes_back_from_its_json(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(text(TOLD, "json"))
    assert read_results(path) == TOLD
    for wrong in ("{}", "[]", "no", '{"arms": [{}]}'):
        path.write_text(wrong)
        with pytest.raises(DataError, match="is no results"):
            read_results(path)


def test_without_scipy_a_report_is_one_line(run, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text(text(TOLD, "json"))
    assert run("ablate", path)[0] == 0
    here = needs.find_spec
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name == "scipy" else here(name))
    message = "error: this needs the package scipy: pip install 'hierarch-vision[train]'\n"
    assert run("ablate", path) == (2, "", message)


def test_the_picture_has_a_point_for_every_run(tmp_path):
    figure = plot(TOLD, tmp_path / "p.svg")
    left, right = figure.axes
    points = [line for line in left.lines if line.get_marker() == "o"]
    drawn = {line.get_ydata()[0]: sorted(line.get_xdata()) for line in points}
    for at, arm in enumerate(TOLD.arms):
        assert drawn.get(at, []) == pytest.approx(sorted(100 * v for v in arm.top1.values()))
    markers = {
        line.get_ydata()[0]: line.get_marker() for line in right.lines if len(line.get_xdata()) == 1
    }
    assert [markers[i] for i in range(1, 5)] == ["^", "v", "o", "o"]
    ElementTree.parse(tmp_path / "p.svg")
    first = (tmp_path / "p.svg").read_bytes()
    plot(copy.deepcopy(TOLD), tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_bytes() == first


def test_mistakes_on_the_command_line(run, tmp_path, data):
    (tmp_path / "g.yaml").write_text(json.dumps(GRID))
    status, _, err = run("ablate", tmp_path / "g.yaml")
    assert (status, err) == (2, "error: a grid needs images: give --data, as for hierarch train\n")
    status, _, err = run(
        "ablate", tmp_path / "g.yaml", "--data", data, "--cluster", "mem_gb=4", "--run", tmp_path
    )
    assert (status, err) == (2, "error: --cluster mem_gb: has no meaning with --on here\n")
    status, _, err = run(
        *("ablate", tmp_path / "g.yaml", "--data", data, "--on", "slurm", "--run", tmp_path / "run")
    )
    assert status == 2
    assert "submitit refuses this" in err
