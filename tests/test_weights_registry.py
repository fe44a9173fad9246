"""A layout is one file: built in, of another package, or registered where it is used."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from helpers import noise, perturb, tiny
from test_infer import run

import hierarch
from hierarch import WeightsError
from hierarch.weights import layouts, registry
from hierarch.weights.layout import Layout
from hierarch.weights.names import row
from hierarch.weights.registry import get_layouts, libraries, register_layout

TOY = """
from hierarch.weights.layout import Layout
from hierarch.weights.names import row, rows
from hierarch.weights.registry import register_layout

LAYOUT = register_layout(
    Layout(
        "toy",
        "swin",
        [
            *rows("stem", "entry", "proj.*", "norm.*"),
            row("stages.{i}.blocks.{j}.mixer.relative_position_bias_table", "s{i+1}.b{j}.table"),
            row("stages.{i}.blocks.{j}.*", "s{i+1}.b{j}.*"),
            row("stages.{i+1}.downsample.*", "merge{i+1}.*"),
            row("norm.*", "final.*"),
            row("head.fc.*", "classes.*"),
        ],
        lambda names: "entry.proj.weight" in names and "s1.b0.table" in names,
        small_map=lambda names: "clamp",
    )
)
"""


@pytest.fixture
def forget():
    """Unregisters what a test registers."""
    before = {library: dict(networks) for library, networks in registry._registered.items()}
    yield
    registry._registered.clear()
    registry._registered.update(before)
    for module in ("hierarch.weights.layouts.toy", "toy_layouts"):
        sys.modules.pop(module, None)


@pytest.fixture
def built_in(tmp_path, monkeypatch, forget):
    """One file more in the folder of the built-in layouts."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path)])


@pytest.fixture
def install(tmp_path, monkeypatch, forget):
    """Installs a package with one entry point."""

    def install(name, value, code=TOY):
        (tmp_path / "toy_layouts.py").write_text(code)
        info = tmp_path / "toy_layouts-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-layouts\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[hierarch.layouts]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def trained():
    return perturb(hierarch.build(tiny(input_size=64, head={"num_classes": 5})), seed=1)


def assert_is_a_library_like_any_other(tmp_path):
    model = trained()
    images = noise(1, 3, 64, 64)
    state = hierarch.export_weights(model, layout="toy")
    assert {"entry.proj.weight", "s1.b0.table", "merge1.norm.weight", "classes.bias"} <= {*state}

    again = perturb(hierarch.build(model.spec), seed=2)
    wrapped = {"state_dict": {f"net.{name}": tensor for name, tensor in state.items()}}
    report = hierarch.load_weights(again, wrapped)
    assert (report.layout, report.network, report.location.prefix) == ("toy", "swin", "net.")
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)

    inferred = hierarch.infer(state)
    assert (inferred.layout, inferred.spec.mixer[0].small_map) == ("toy", "clamp")
    with torch.no_grad():
        torch.testing.assert_close(
            hierarch.from_checkpoint(state)(images), model(images), rtol=1e-5, atol=1e-5
        )

    there, back = tmp_path / "there.pth", tmp_path / "back.pth"
    timm = hierarch.export_weights(model, layout="timm")
    hierarch.convert_weights(timm, there, layout="toy")
    found = torch.load(there)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert hierarch.convert_weights(there, back, layout="timm").source_layout == "toy"
    found = torch.load(back)
    assert all(torch.equal(found[name], tensor) for name, tensor in timm.items())

    assert "toy" in libraries()
    with pytest.raises(WeightsError, match=r"unknown layout 'keras'; known: .*, toy"):
        hierarch.load_weights(again, state, layout="keras")
    with pytest.raises(WeightsError, match=r"The keys fit no layout of .*toy"):
        hierarch.load_weights(again, {"weight": torch.ones(1)})
    status, out, err = run("convert", there, back, "--layout", "keras")
    assert (status, out) == (2, "")
    assert re.search("unknown layout 'keras'; known: .*, toy", err)


def test_a_file_in_the_folder_is_a_built_in_layout(tmp_path, built_in):
    assert_is_a_library_like_any_other(tmp_path)


@pytest.mark.parametrize("value", ["toy_layouts:LAYOUT", "toy_layouts:ALL"])
def test_a_packages_layout_is_first_class(tmp_path, install, value):
    install("toy", value, f"{TOY}\nALL = [LAYOUT]\n")
    assert "toy_layouts" not in sys.modules
    assert_is_a_library_like_any_other(tmp_path)


def test_a_layout_can_be_registered_where_it_is_used(tmp_path, forget):
    exec(TOY, {})
    assert_is_a_library_like_any_other(tmp_path)


def test_the_help_lists_every_library_without_importing_one(built_in):
    script = f"""
import sys
from hierarch.weights import layouts
layouts.__path__ = {layouts.__path__!r}
from typer.testing import CliRunner
from hierarch.cli import app
print(CliRunner().invoke(app, ["convert", "--help"], env={{"COLUMNS": "200"}}).stdout)
assert "torch" not in sys.modules
"""

    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert ", ".join(sorted({*registry._builtin()})) in " ".join(made.stdout.split())
    assert "toy" in made.stdout


def test_without_the_file_the_layout_is_unknown():
    with pytest.raises(WeightsError, match="unknown layout 'toy'"):
        hierarch.export_weights(trained(), layout="toy")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("toy", "no_such_module:LAYOUT", "cannot be loaded: ModuleNotFoundError"),
        ("toy", "toy_layouts:MISSING", "cannot be loaded: AttributeError"),
        ("toy", "toy_layouts:row", "is no Layout, and no sequence of Layouts"),
        ("toy", "toy_layouts:NONE", "is no Layout, and no sequence of Layouts"),
        ("toy", "toy_layouts:NAMES", "is no Layout of the library 'toy'"),
        ("other", "toy_layouts:LAYOUT", "is no Layout of the library 'other'"),
    ],
)
def test_a_broken_package_is_named(install, name, value, message):
    install(name, value, f"{TOY}\nNONE = []\nNAMES = ['toy']\n")
    state = trained().state_dict()
    with pytest.raises(WeightsError, match=f"layout '{name}', entry point '{value}': {message}"):
        hierarch.load_weights(trained(), state)
    assert hierarch.load_weights(trained(), state, layout="hierarch").layout == "hierarch"


def test_a_name_that_is_taken_is_refused(forget):
    [timm] = get_layouts("timm:swin")
    assert register_layout(timm) is timm
    with pytest.raises(TypeError, match="layout 'timm:swin' is already registered"):
        register_layout(Layout("timm", "swin", timm.rows, timm.recognizes))


def test_a_layout_needs_a_name_for_the_stem():
    with pytest.raises(TypeError, match=r"layout 'toy:swin' needs a row for stem.proj.weight"):
        Layout("toy", "swin", [row("norm.*", "norm.*")], lambda names: True)


def test_every_file_registers_the_library_that_it_is_named_after():
    for library in registry._builtin():
        assert {layout.library for layout in get_layouts(library)} == {library}
