"""Mixers of other packages, by the entry-point group `hierarch.mixers`."""

import subprocess
import sys

import pytest

import hierarch
from hierarch.spec import plugins, registry
from hierarch.testing import check_mixer

PLUGIN = """
from typing import Literal
from torch import nn
import hierarch

@hierarch.register
class TransposeSpec(hierarch.MixerSpec):
    "Swaps height and width twice."
    type: Literal["transpose"] = "transpose"

    def macs(self, *, dim, grid):
        return 0

    def build(self, dim):
        return Transpose()

class Transpose(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2).transpose(1, 2).clone()

class NoMixer:
    pass
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with these entry points, for the length of a test."""

    def install(**entries):
        (tmp_path / "plugin_of_ours.py").write_text(PLUGIN)
        info = tmp_path / "plugin_of_ours-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-ours\nVersion: 1\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[hierarch.mixers]", *lines]) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("plugin_of_ours", None)
    registry._registered["mixer"].pop("transpose", None)


def spec(mixer):
    return {"stages": [{"dim": 8, "depth": 1}], "mixer": mixer}


def test_an_installed_mixer_can_be_used_like_a_built_in_one(install, run):
    install(transpose="plugin_of_ours:TransposeSpec")
    assert "plugin_of_ours" not in sys.modules
    assert "transpose" in registry.names("mixer")
    assert hierarch.measure(spec("transpose"), [32]).verdict == "linear"
    assert "mixer.transpose" in hierarch.schema()["$defs"]
    assert hierarch.swap("swin_tiny", "transpose").mixer[0].type == "transpose"
    check_mixer("transpose")
    status, out, _ = run("mixers", "--format", "csv")
    assert status == 0
    assert "transpose" in out


def test_without_the_package_the_mixer_is_unknown():
    with pytest.raises(hierarch.SpecError, match="unknown mixer 'transpose'"):
        hierarch.load(spec("transpose"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Spec", "cannot be loaded: ModuleNotFoundError"),
        ("plugin_of_ours:Missing", "cannot be loaded: AttributeError"),
        ("plugin_of_ours:NoMixer", "is no mixer's spec"),
    ],
)
def test_a_broken_package_is_named(install, run, tmp_path, value, message):
    install(broken=value)
    with pytest.raises(hierarch.SpecError, match=f"{value}.*{message}"):
        hierarch.load(spec("broken"))
    assert hierarch.load(spec("pooling")).mixer[0].type == "pooling"
    status, out, err = run("mixers")
    assert (status, out) == (2, "")
    assert message in err


@pytest.fixture
def forget(monkeypatch):
    """Takes back what a file registers."""
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(plugins, "_loaded", set())
    before = dict(registry._registered["mixer"])
    yield
    registry._registered["mixer"] = before


def test_a_file_of_ones_own_is_known_to_every_command_and_its_processes(run, tmp_path, forget):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "net.yaml").write_text("mixer: transpose\nstages: [{dim: 8, depth: 1}]\n")
    command = ("--plugin", tmp_path / "mine.py")
    status, out, _ = run(*command, "flops", tmp_path / "net.yaml", "--format", "csv")
    assert status == 0
    assert out.splitlines()[1].startswith("backbone,")
    assert "transpose" in run(*command, "mixers")[1]
    assert run(*command, "validate", tmp_path / "net.yaml")[0] == 0
    script = f"import hierarch; print(hierarch.load({str(tmp_path / 'net.yaml')!r}).mixer[0].type)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.stdout == "transpose\n", told.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "this plugin cannot be loaded: FileNotFoundError: "),
        ("import nothing_of_the_kind", "cannot be loaded: ModuleNotFoundError: "),
        ("x = 1 +", "cannot be loaded: SyntaxError: "),
    ],
)
def test_a_file_that_fails_is_named(run, tmp_path, forget, text, message):
    path = tmp_path / "mine.py"
    if text:
        path.write_text(text)
    for _ in range(2):
        status, _, err = run("--plugin", path, "mixers")
        assert status == 2
        assert err.startswith(f"error: {path}: ")
        assert message in err
