"""`hierarch train`, `evaluate` and `predict` as they are typed, and what they say to a mistake."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import train_data

import hierarch
from hierarch.errors import DataError, TrainError
from hierarch.report.training import SizeAccuracy
from hierarch.train.networks import evaluate, open_network, predict

CPU = ("--accelerator", "cpu", "--devices", "1")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run on an image folder."""
    from hierarch.train.running import train
    from hierarch.train.settings import Machine

    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("made")
    folder = train_data.folder(path / "images", held_out=9)
    plain = {"mix": {}, "ema_decay": None, "epochs": 10, "augment": {"crop": "center"}}
    recipe = train_data.RECIPE | plain | {"optimizer": {"lr": 0.01}}
    machine = Machine(accelerator="cpu", devices="1")
    train(train_data.network(), str(folder), recipe=recipe, run=path / "run", machine=machine)
    return path


@pytest.fixture
def files(tmp_path):
    train_data.npz(tmp_path / "d.npz")
    (tmp_path / "r.yaml").write_text(json.dumps(train_data.RECIPE))
    (tmp_path / "s.yaml").write_text(json.dumps(train_data.network()))
    return tmp_path


def options(files, *more):
    return ("--data", files / "d.npz", "--recipe", files / "r.yaml", *CPU, *more)


def test_train_evaluate_and_predict(run, files, monkeypatch):
    monkeypatch.chdir(files)
    status, out, err = run("train", "s.yaml", *options(files, "--format", "json"))
    assert (status, err) == (0, "tiny: the classifier has 3 classes, as the data\n")
    [report] = json.loads(out)
    assert (report["run"], report["steps"]) == ("runs/tiny-tiny", 9)
    about = json.loads((files / "runs" / "tiny-tiny" / "run.json").read_text())
    assert about["command"][:3] == ["hierarch", "train", "s.yaml"]
    status, out, _ = run("evaluate", "runs/tiny-tiny", "--format", "json", "--accelerator", "cpu")
    assert json.loads(out)["sizes"][0]["top1"] == report["val_top1"]
    assert json.loads(out)["sizes"][0]["loss"] == pytest.approx(report["val_loss"], abs=1e-6)
    status, out, err = run("train", "s.yaml", *options(files))
    assert status == 2
    assert err.endswith("runs/tiny-tiny: holds a run already; give --resume to go on with it, or "
                        "another --run\n")  # fmt: skip
    status, out, err = run("train", "s.yaml", *options(files, "--resume"))
    assert status == 0
    assert "is finished already" in err
    assert "runs/tiny-tiny" in out


def test_values_are_set_in_the_recipe_and_in_the_spec(run, files):
    sets = ("--set", "epochs=1", "--set", "spec.mlp_ratio=3", "--run", files / "run")
    status, *_ = run("train", files / "s.yaml", *options(files, *sets))
    assert status == 0
    assert hierarch.load(files / "run" / "spec.yaml").mlp_ratio == 3
    assert hierarch.load_recipe(files / "run" / "recipe.yaml").epochs == 1


def test_several_networks_each_have_a_folder(run, files):
    other = train_data.network(name="other", mlp_ratio=1)
    (files / "o.yaml").write_text(json.dumps(other))
    specs = (files / "s.yaml", files / "o.yaml")
    more = ("--run", files / "runs", "--set", "epochs=1", "--format", "csv")
    status, out, _ = run("train", *specs, *options(files, *more))
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["name"] for row in rows] == ["tiny", "other"]
    assert (files / "runs" / "other" / "results.json").exists()
    status, _, err = run("train", specs[0], specs[0], *options(files))
    assert (status, err[:41]) == (2, "error: two specs have the same name (tiny")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "optimzer.lr=1"), "optimzer: unknown key 'optimzer', did you mean 'optimizer'"),
        (("--set", "spec.mixxer=1"), "mixxer: unknown key 'mixxer', did you mean 'mixer'?"),
        (("--set", "batch_size=64"), "the training set has 28 images, fewer than one batch of 64"),
        (("--recipe", "smok"), "no such file or preset: 'smok', did you mean 'smoke'?"),
        (("--data", "cifar11"), "no such folder, file or dataset: 'cifar11', did you mean"),
        (("--log", "paper"), "--log 'paper': known: mlflow, tensorboard, wandb"),
        (("--weights", "none.pth"), "none.pth: cannot be read"),
        (("--set", "spec.stem.in_chans=4"), "has 3 channels, and the network takes 4: set spec"),
    ],
)
def test_a_mistake_is_one_message(run, files, arguments, message):
    run_folder = ("--run", files / "run")
    status, out, err = run("train", files / "s.yaml", *options(files, *run_folder, *arguments))
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("package", ["lightning", "torchvision"])
def test_a_missing_package_is_one_line(run, files, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    wanted = f"error: this needs the package {package}: pip install 'hierarch-vision[train]'\n"
    assert run("train", files / "s.yaml", *options(files)) == (2, "", wanted)
    arguments = ("evaluate", files / "s.yaml", "--weights", "w.pth", "--data", files / "d.npz")
    assert run(*arguments) == (2, "", wanted)
    arguments = ("predict", files / "s.yaml", "x.png", "--weights", "w.pth")
    assert run(*arguments) == (2, "", wanted)


def test_a_missing_logger_is_one_line(run, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    more = ("--log", "tensorboard", "--run", files / "run")
    status, _, err = run("train", files / "s.yaml", *options(files, *more))
    assert status == 2
    assert "needs the package tensorboard: pip install 'hierarch-vision[train]'\n" in err


@pytest.mark.parametrize(
    "code",
    [
        "import hierarch; hierarch.build('swin_tiny', stages=[{'dim': 32, 'depth': 1}])",
        "from hierarch.cli import app; from hierarch.complexity import measure",
        "import hierarch; hierarch.load_recipe('smoke')",
    ],
)
def test_nothing_else_needs_the_packages_of_training(code):
    new = "{'lightning', 'tensorboard', 'torchmetrics', 'torchvision'}"
    check = f"{code}\nimport sys; print(sorted({new} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_evaluation_counts_what_a_loop_over_images_counts(made):
    from hierarch.train.images import Images, evaluation
    from hierarch.train.sources import open_data

    report = evaluate(made / "run", sizes=[(32, 32), (48, 40)], batch_size=4)
    network = open_network(made / "run")
    held_out = open_data(str(made / "images")).held_out
    for found in report.sizes:
        transform = evaluation(network.recipe, found.size, 3)
        images = Images(held_out, transform, in_chans=3)
        confusion = np.zeros((3, 3), int)
        losses = []
        for i in range(len(images)):
            image, label = images[0, i]
            with torch.no_grad():
                logits = network.model(image[None])
            confusion[label, int(logits.argmax())] += 1
            losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor([label]))))
        assert found.confusion == tuple(map(tuple, confusion.tolist()))
        assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)
        assert found.images == found.top5 == 9
    assert report.sizes[0].share(report.sizes[0].right) > 0.6


def test_figures_of_a_confusion_matrix():
    found = SizeAccuracy(size=(8, 8), loss=0.5, top5=7, confusion=((3, 1, 0), (0, 2, 2), (0, 0, 0)))
    assert (found.images, found.right) == (8, 5)
    assert (found.recall(0), found.recall(1), found.recall(2)) == (0.75, 0.5, None)
    assert [found.precision(i) for i in range(3)] == [1.0, 2 / 3, 0.0]
    assert found.share(found.right) == 0.625


def test_evaluate_is_written_in_every_format(run, made):
    arguments = ("evaluate", made / "run", "--sizes", "32,48x40", "--accelerator", "cpu")
    status, out, _ = run(*arguments)
    assert status == 0
    assert "32x32" in out
    assert "48x40" in out
    assert "Taken for" in out
    _, out, _ = run(*arguments, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["class"] for row in rows] == ["ant", "bee", "cat"] * 2
    _, out, _ = run(*arguments, "--format", "markdown")
    assert "| ant " in out


def test_a_spec_with_weights_is_evaluated_as_its_run_is(run, made):
    data = ("--data", made / "images", "--format", "json", "--accelerator", "cpu")
    spec = (made / "run" / "spec.yaml", "--weights", made / "run" / "model.safetensors")
    _, wanted, _ = run("evaluate", made / "run", *data)
    status, out, _ = run("evaluate", *spec, "--recipe", made / "run" / "recipe.yaml", *data)
    assert (status, out) == (0, wanted)


def test_predictions(run, made):
    image = made / "images" / "val" / "cat" / "002.png"
    status, out, _ = run("predict", made / "run", image, "--top", "2", "--format", "json")
    [found] = json.loads(out)
    assert (status, found["image"], len(found["classes"])) == (0, str(image), 2)
    assert found["classes"][0]["probability"] >= found["classes"][1]["probability"]
    _, out, _ = run("predict", made / "run", made / "images" / "val", "--format", "csv")
    rows = [row for row in csv.DictReader(io.StringIO(out)) if row["rank"] == "1"]
    right = sum(f"/{row['class']}/" in row["image"] for row in rows)
    report = evaluate(made / "run")
    assert (len(rows), right) == (9, report.sizes[0].right)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "{made}"), "is no run's folder; give one, or a spec with --weights"),
        (("evaluate", "swin_tiny"), "swin_tiny: is a spec; give its weights with --weights"),
        (("evaluate", "{made}/run", "--split", "tset"), "--split 'tset': should be train or val"),
        (("evaluate", "{made}/run", "--set", "mlp_ratio=1"), "--set changes a spec; a run has"),
        (("predict", "{made}/run", "{made}/run/run.json"), "run.json: cannot be read"),
        (("predict", "{made}/run", "{made}/run"), "has no images in it"),
        (("predict", "{made}/run", "nowhere.png"), "nowhere.png: cannot be read"),
    ],
)
def test_what_cannot_be_evaluated(run, made, arguments, message):
    status, out, err = run(*(argument.format(made=made) for argument in arguments))
    assert (status, out) == (2, "")
    assert message in err


def test_other_classes_than_the_runs(made, tmp_path):
    other = train_data.folder(tmp_path / "other", classes=("ant", "bee", "dog"))
    with pytest.raises(DataError, match="other classes than the run: 'dog' stands in the place"):
        evaluate(made / "run", str(other))
    two = train_data.folder(tmp_path / "two", classes=("ant", "bee"))
    with pytest.raises(DataError, match="the data has 2 classes, and tiny 3"):
        evaluate(made / "run", str(two))


def test_unreadable_images_in_evaluation(made, tmp_path):
    folder = train_data.folder(tmp_path / "images", held_out=9)
    (folder / "val" / "bee" / "001.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"bee/001\.png: cannot be read.*; --skip-broken leaves"):
        evaluate(made / "run", str(folder))
    found = evaluate(made / "run", str(folder), skip_broken=True).sizes[0]
    assert (found.images, found.broken) == (8, 1)


def test_a_run_without_weights_yet(made, tmp_path):
    from hierarch.train.folder import RunFolder

    run = RunFolder(tmp_path)
    run.begin(spec="", recipe="", about={})
    with pytest.raises(TrainError, match="has no weights yet; go on with it"):
        predict(tmp_path, ["x.png"])
