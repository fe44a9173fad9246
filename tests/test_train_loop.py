"""The loop: what a step does, going on, what is kept, what is said when it cannot go on."""

import csv
import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_data
from safetensors.torch import load_file

import hierarch
from hierarch.errors import DataError, TrainError
from hierarch.files import writing
from hierarch.train.average import Average
from hierarch.train.culprit import culprit
from hierarch.train.folder import RunFolder
from hierarch.train.init import draw_by_fan_in
from hierarch.train.optim import Schedule, depth_of, optimizer, rate
from hierarch.train.recipe import load_recipe
from hierarch.train.running import train
from hierarch.train.settings import Machine

CPU = Machine(accelerator="cpu", devices="1")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path):
    return str(train_data.npz(tmp_path / "data.npz"))


def trained(data, run, *, spec=None, stop_at=None, **options):
    """A run; one that is stopped after a step raises KeyboardInterrupt there."""

    def advance(progress):
        if progress.step == stop_at:
            raise KeyboardInterrupt

    recipe = train_data.RECIPE | options.pop("recipe", {})
    return train(
        spec or train_data.network(),
        data,
        recipe=recipe,
        run=run,
        machine=CPU,
        advance=advance,
        **options,
    )


def weights(run):
    return load_file(run / "model.safetensors")


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def without_speed(run):
    return [row | {"images_per_s": ""} for row in RunFolder(run).rows()]


def test_it_learns_and_leaves_what_the_run_was(data, tmp_path):
    run = tmp_path / "run"
    plain = {"mix": {}, "ema_decay": None, "epochs": 10, "augment": {"crop": "center"}}
    report = trained(data, run, recipe=plain | {"optimizer": {"lr": 0.01}}, command=["hierarch"])
    assert report.val_top1 > 0.9
    assert report.steps == 30
    rows = RunFolder(run).rows()
    assert float(rows[-2]["loss"]) < 0.5 < float(rows[0]["loss"])
    assert json.loads((run / "results.json").read_text()) == report.to_data()
    about = json.loads((run / "run.json").read_text())
    assert about["images"] == 28
    assert about["versions"]["torch"] == torch.__version__
    assert about["git"] is None or len(about["git"]["commit"]) == 40
    assert hierarch.load(run / "spec.yaml").head.num_classes == 3
    assert load_recipe(run / "recipe.yaml").epochs == 10
    assert not list(run.glob(".*.*"))


def test_a_run_is_the_same_twice_and_another_with_another_seed(data, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(data, tmp_path / name, recipe={"seed": seed})
    assert_equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert without_speed(tmp_path / "a") == without_speed(tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(data, tmp_path, every):
    recipe = {"checkpoint_steps": every, "accumulate": 2, "log_steps": 4, "ema_decay": 0.99}
    trained(data, tmp_path / "whole", recipe=recipe)
    for stop in (1, 5, 8):
        with pytest.raises(KeyboardInterrupt):
            trained(data, tmp_path / "run", recipe=recipe, stop_at=stop, resume=True)
    report = trained(data, tmp_path / "run", recipe=recipe, resume=True)
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert_equal(
        load_file(tmp_path / "run" / "best.safetensors"),
        load_file(tmp_path / "whole" / "best.safetensors"),
    )
    assert without_speed(tmp_path / "run") == without_speed(tmp_path / "whole")
    assert report == trained(data, tmp_path / "run", recipe=recipe, resume=True)  # finished


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        trained(data, run, recipe={"checkpoint_steps": 1}, stop_at=2)
    with pytest.raises(TrainError, match="holds a run already; give --resume"):
        trained(data, run)
    with pytest.raises(TrainError, match="its recipe differs from that of this command"):
        trained(data, run, resume=True)
    recipe, spec = {"checkpoint_steps": 1}, train_data.network(mlp_ratio=3)
    with pytest.raises(TrainError, match="its spec differs"):
        trained(data, run, recipe=recipe, spec=spec, resume=True)
    other = str(train_data.npz(tmp_path / "other.npz", count=29))
    with pytest.raises(TrainError, match="its data differs"):
        trained(other, run, recipe={"checkpoint_steps": 1}, resume=True)


def test_a_run_that_never_came_to_a_checkpoint_begins_anew(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(DataError, match="fewer than one batch of 64"):
        trained(data, run, recipe={"batch_size": 64})
    with pytest.raises(KeyboardInterrupt):
        trained(data, run, recipe={"batch_size": 4}, stop_at=2)
    trained(data, run)
    assert load_recipe(run / "recipe.yaml").batch_size == 8
    assert [row["step"] for row in RunFolder(run).rows()][:3] == ["1", "2", "3"]


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(TrainError, match=r"holds thesis\.tex, which is no run's"):
        trained(data, tmp_path / "run")


def test_two_runs_in_one_folder(data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    held = pytest.raises(TrainError, match="another run is writing here; give another --run")
    with folder.locked(), held:
        trained(data, tmp_path / "run")
    assert trained(data, tmp_path / "run").steps == 9


def test_a_checkpoint_of_an_older_form_is_refused(data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trained(data, folder.path, recipe={"checkpoint_steps": 1}, stop_at=2)
    state = folder.load()
    del state["identity"]["form of checkpoint"], state["scaler"]
    folder.save(state, kept="")
    with pytest.raises(TrainError, match="its form of checkpoint differs from that of this comman"):
        trained(data, folder.path, recipe={"checkpoint_steps": 1}, resume=True)


def test_weights_to_start_from(data, tmp_path):
    trained(data, tmp_path / "first")
    still = {"optimizer": {"lr": 1e-12}, "schedule": {}, "ema_decay": None}
    for name in ("model.safetensors", "checkpoint.pt"):
        run = tmp_path / name.replace(".", "_")
        trained(data, run, recipe=still, weights=tmp_path / "first" / name)
        for key, value in weights(run).items():
            torch.testing.assert_close(value, weights(tmp_path / "first")[key])


def test_accumulated_parts_are_one_step(data, tmp_path):
    plain = {
        "mix": {},
        "augment": {"crop": "center", "flip": 0.0},
        "precision": "float64",
        "epochs": 1,
    }
    spec = train_data.network(drop_path_rate=0.0)
    for name, parts in (("one", 1), ("four", 4)):
        trained(data, tmp_path / name, spec=spec, recipe=plain | {"accumulate": parts})
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(value, weights(tmp_path / "four")[key], rtol=0, atol=1e-10)


def test_broken_images(tmp_path):
    folder = train_data.folder(tmp_path / "images")
    broken = folder / "train" / "bee" / "001.png"
    broken.write_bytes(b"no image")
    (folder / "val" / "ant" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"bee/001\.png: cannot be read.*; --skip-broken takes"):
        trained(str(folder), tmp_path / "run")
    for workers, run in ((0, tmp_path / "a"), (2, tmp_path / "b")):
        machine = Machine(accelerator="cpu", devices="1", workers=workers)
        recipe = train_data.RECIPE | {"batch_size": 4}  # all 28 in each of 3 epochs
        report = train(
            train_data.network(),
            str(folder),
            recipe=recipe,
            run=run,
            machine=machine,
            skip_broken=True,
        )
        assert report.broken == 3
    assert_equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_number_that_is_not_finite_stops_with_what_was_good(data, tmp_path):
    recipe = {"optimizer": {"lr": 1e6}, "clip_grad_norm": None, "ema_decay": None}
    with pytest.raises(TrainError) as error:
        trained(data, tmp_path / "run", recipe=recipe | {"epochs": 40})
    assert "not finite, first in the" in str(error.value)
    state = RunFolder(tmp_path / "run").load()
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    step = state["counts"]["step"]
    assert f"step {step + 1} " in str(error.value)
    assert [int(row["step"]) for row in RunFolder(tmp_path / "run").rows()][-1] <= step


def test_the_layer_that_made_it_is_named():
    model = hierarch.build(train_data.network(head={"num_classes": 3}))
    image = torch.randn(1, 3, 32, 32)

    def loss():
        return model(image).sum()

    assert culprit(model, loss) == ""
    layer = model.stages[1].blocks[0].mlp.fc2
    with torch.no_grad():
        layer.weight.fill_(3e38)
        model.stages[1].blocks[0].mlp.fc1.bias.fill_(10)
    assert culprit(model, loss) == "the output of stages.1.blocks.0.mlp.fc2 (Linear)"
    assert not model._forward_hooks
    assert not layer._forward_hooks
    with torch.no_grad():
        layer.weight[0, 0] = math.nan
    assert culprit(model, loss) == "the weights stages.1.blocks.0.mlp.fc2.weight"
    with torch.no_grad():
        layer.weight.zero_()
    assert culprit(model, lambda: loss() * math.inf).startswith("the loss")
    gradient = culprit(model, lambda: (model(image) * 0).sum().abs().sqrt())
    assert gradient.startswith("the gradient of head.fc")


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
import train_data, test_train_loop
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
test_train_loop.trained({data!r}, {run!r}, recipe={{"checkpoint_steps": 1}}, resume=True)
"""


def test_a_disk_that_takes_no_more(data, tmp_path):
    """The largest size of a file stands for a full disk: both are an error of `write`."""
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        trained(data, run, recipe={"checkpoint_steps": 1}, stop_at=3)
    before = RunFolder(run).checkpoint.read_bytes()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    code = FULL.format(tests=str(Path(__file__).parent), limit=30_000, data=data, run=str(run))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TrainError" in done.stderr
    assert "the checkpoint cannot be written: File too large; kept: the checkpoint" in done.stderr
    assert RunFolder(run).checkpoint.read_bytes() == before
    assert not list(run.glob(".checkpoint.pt.*"))
    trained(data, run, recipe={"checkpoint_steps": 1}, resume=True)
    trained(data, tmp_path / "whole", recipe={"checkpoint_steps": 1})
    assert_equal(weights(run), weights(tmp_path / "whole"))


def test_what_a_killed_run_was_writing_is_removed(data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    trained(data, folder.path)
    writer = writing(folder.checkpoint)
    half = writer.__enter__()  # and never left
    assert half.exists()
    with folder.locked():
        assert not half.exists()
    assert folder.load() is not None


def test_a_half_row_of_metrics_is_dropped(data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    trained(data, folder.path)
    rows = folder.rows()
    with folder.metrics.open("a") as file:
        file.write("10,3,0.0")
    assert folder.rows() == rows
    folder.rewind(4)
    assert [row["step"] for row in folder.rows()] == ["1", "2", "3", "3", "4"]


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(accelerator="gpu2"), "Lightning Fabric refuses these devices"),
        (Machine(accelerator="cpu", devices="0"), "Lightning Fabric refuses these devices"),
        (Machine(accelerator="cpu", strategy="dpp"), "--strategy 'dpp': did you mean 'ddp'?"),
        (Machine(accelerator="cpu", strategy="fsdp"), "--strategy 'fsdp': did you mean 'fsdp2'?"),
        (Machine(accelerator="cpu", loggers=("wandbb",)), "--log 'wandbb': did you mean 'wandb'?"),
    ],
)
def test_flags_that_mean_nothing(data, tmp_path, machine, message):
    with pytest.raises(TrainError) as error:
        train(train_data.network(), data, recipe=train_data.RECIPE, run=tmp_path, machine=machine)
    assert message in str(error.value)


def test_the_rate_warms_up_and_falls_as_a_cosine():
    recipe = load_recipe(
        {"epochs": 10, "schedule": {"warmup_epochs": 2, "warmup_lr": 0.1, "min_lr": 0.2}}
    )
    timing = {"peak": 1.0, "steps": 100, "steps_per_epoch": 10}
    rates = [rate(recipe.schedule, step=step, **timing) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(0.55)
    assert rates[20] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.6)
    assert rates[100] == pytest.approx(0.2)
    model = hierarch.build(train_data.network(head={}))
    layered = load_recipe(recipe.to_data() | {"optimizer": {"lr": 1.0, "layer_decay": 0.5}})
    adam = optimizer(model, layered.optimizer)
    peaks = [group["lr"] for group in adam.param_groups]
    assert len({*peaks}) > 1
    schedule = Schedule(adam, layered, steps=100, steps_per_epoch=10)
    for step in (0, 10, 100, 60):
        assert schedule.set(step) == pytest.approx(rates[step] * max(peaks))
        for group, peak in zip(adam.param_groups, peaks, strict=True):
            assert group["lr"] == pytest.approx(rates[step] * peak)


def test_the_rate_is_absolute():
    recipe = load_recipe(
        {"epochs": 1, "optimizer": {"lr": 0.5}, "schedule": {"min_lr": 0.1, "warmup_lr": 0.2}}
    )
    timing = {"peak": 0.5, "steps": 10, "steps_per_epoch": 10}
    assert rate(recipe.schedule, step=10, **timing) == pytest.approx(0.1)
    assert rate(recipe.schedule, step=0, **timing) == 0.5


def test_norms_biases_and_tables_do_not_decay_and_every_weight_is_in_one_group():
    model = hierarch.build(train_data.network(head={"num_classes": 3}))
    adam = optimizer(model, load_recipe({"epochs": 1}).optimizer)
    decay = {id(p): group["weight_decay"] for group in adam.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert len(decay) == len(named) == sum(len(group["params"]) for group in adam.param_groups)
    still = {name for name, p in named.items() if decay[id(p)] == 0}
    assert still == {n for n, p in named.items() if p.ndim < 2 or "table" in n}
    assert any("table" in name for name in still)
    assert decay[id(named["stages.0.blocks.0.mlp.fc1.weight"])] == 0.05


def test_earlier_blocks_learn_slower():
    model = hierarch.build(train_data.network(head={"num_classes": 3}))
    depths = {name: depth_of(model, name) for name, _ in model.named_parameters()}
    assert depths["stem.proj.weight"] == 0
    assert depths["stages.0.blocks.0.mlp.fc1.weight"] == 1
    assert depths["stages.1.blocks.0.mlp.fc1.weight"] == 2
    assert {depth for name, depth in depths.items() if "downsample" in name} == {2}
    assert depths["head.fc.weight"] == depths["norm.weight"] == 3
    recipe = load_recipe({"epochs": 1, "optimizer": {"lr": 1.0, "layer_decay": 0.5}})
    adam = optimizer(model, recipe.optimizer)
    rates = {id(p): group["lr"] for group in adam.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == 0.5 ** (3 - depths[name])


def test_the_average_starts_fast():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = Average(layer, 0.9)
    value, wanted = 0.0, None
    for n in range(40):
        value += 1.0
        with torch.no_grad():
            layer.weight.fill_(value)
        average.update()
        decay = min(0.9, (1 + n) / (10 + n))
        wanted = value if wanted is None else decay * wanted + (1 - decay) * value
        with average.in_place():
            assert float(layer.weight.detach()) == pytest.approx(wanted, rel=1e-5)
        assert float(layer.weight.detach()) == value


def test_the_weights_come_back_after_the_average_whatever_happens():
    layer = torch.nn.BatchNorm1d(2)
    average = Average(layer, 0.9)
    average.update()
    with torch.no_grad():
        layer.weight.fill_(3)
        layer.running_mean.fill_(5)
    with average.in_place():
        assert layer.weight.tolist() == [1, 1]
        assert layer.running_mean.tolist() == [5, 5]  # which is not averaged
    assert layer.weight.tolist() == [3, 3]
    with pytest.raises(KeyboardInterrupt), average.in_place():
        raise KeyboardInterrupt
    assert layer.weight.tolist() == [3, 3]


def test_metrics_go_to_loggers_of_fabric_too(data, tmp_path):
    from lightning.fabric.loggers import CSVLogger

    logger = CSVLogger(tmp_path, name="fabric", version="", flush_logs_every_n_steps=1)
    machine = Machine(accelerator="cpu", devices="1", loggers=[logger])
    run = tmp_path / "run"
    train(train_data.network(), data, recipe=train_data.RECIPE, run=run, machine=machine)
    with (tmp_path / "fabric" / "metrics.csv").open() as file:
        theirs = [row["loss"] for row in csv.DictReader(file) if row["loss"]]
    assert theirs == [row["loss"] for row in RunFolder(run).rows() if row["loss"]]


@pytest.mark.parametrize(
    ("fields", "evaluated"),
    [({"precision": "bfloat16"}, ["3", "6", "9"]), ({"evaluate_epochs": 2}, ["6", "9"])],
)
def test_other_ways_to_compute_and_to_evaluate(data, tmp_path, fields, evaluated):
    report = trained(data, tmp_path / "run", recipe=fields)
    rows = RunFolder(tmp_path / "run").rows()
    assert [row["step"] for row in rows if row["val_loss"]] == evaluated
    assert math.isfinite(report.loss)
    kept = weights(tmp_path / "run").values()
    assert {value.dtype for value in kept if value.is_floating_point()} == {torch.float32}


def test_weights_drawn_by_fan_in_keep_the_size_of_what_goes_through():
    mixers = [
        {"type": "window_mlp", "num_heads": 2, "window_size": 8},
        {"type": "window_attention", "num_heads": 2, "window_size": 4},
        {"type": "depthwise_conv", "kernel_size": 5},
    ]
    model = hierarch.build(train_data.network(mixer=mixers, stages=[{"dim": 256, "depth": 3}]))
    draw_by_fan_in(model)
    one, two, three = (block.mixer for block in model.stages[0].blocks)
    inputs = {
        two.qkv: 256,
        model.stages[0].blocks[0].mlp.fc2: model.stages[0].blocks[0].mlp.fc2.in_features,
        three.conv: 25,
        model.stem.proj: model.stem.proj.weight[0].numel(),
        one: 64,
    }
    for layer, count in inputs.items():
        # a normal that is cut at 2 in absolute terms, which only small counts come near
        assert layer.weight.std().item() == pytest.approx(count**-0.5, rel=0.05)
    table = two.relative_position_bias_table
    assert table.std().item() == pytest.approx(0.02, rel=0.3)
    x = torch.randn(4, 64, 256)
    assert two.qkv(x).std().item() == pytest.approx(1, rel=0.1)
