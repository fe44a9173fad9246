"""The wheel, installed elsewhere, and the public names."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import hierarch

ROOT = Path(__file__).parents[1]
SPECS = sorted(path.relative_to(ROOT / "specs") for path in (ROOT / "specs").rglob("*.yaml"))


def python(*args, cwd, **env):
    """The output of a command in a folder from which the checkout cannot be imported."""
    command = [sys.executable, *map(str, args)]
    environment = {**os.environ, **{key: str(value) for key, value in env.items()}}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # where the build backend is installed, nothing is fetched for a build of its own
    local = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    python("-m", "build", "--wheel", *local, "--outdir", folder, ROOT, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with nothing but the installed wheel."""
    site = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-index", "--target", site)
    python("-m", "pip", "install", *options, wheel, cwd=site.parent)
    return site


def test_the_wheel_has_the_package_the_specs_and_the_types(wheel):
    names = set(ZipFile(wheel).namelist())
    assert names >= {f"hierarch/specs/{path.as_posix()}" for path in SPECS}
    recipes = {f"hierarch/recipes/{path.name}" for path in (ROOT / "recipes").iterdir()}
    assert len(recipes) > 1
    assert names >= recipes
    assert names >= {"hierarch/specs/schema.json", "hierarch/py.typed", "hierarch/__main__.py"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hierarch").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {name.split("/")[0].split("-")[0] for name in names} == {"hierarch", "hierarch_vision"}


def test_the_wheels_metadata(wheel):
    with ZipFile(wheel) as archive:
        read = {name.split("/")[-1]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(read["METADATA"]).decode())
        commands = archive.read(read["entry_points.txt"]).decode()
        assert "LICENSE" in read
    assert metadata["Name"] == "hierarch-vision"
    assert metadata["Version"] == hierarch.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "torch>=2.6" in metadata.get_all("Requires-Dist")
    assert "hierarch = hierarch.cli:main" in commands


def test_presets_are_found_by_name_without_a_checkout(installed, tmp_path):
    code = """
import json, hierarch
presets = hierarch.presets()
print(json.dumps({
    "file": hierarch.__file__,
    "presets": presets,
    "depths": [stage.depth for stage in hierarch.load("swin_tiny").stages],
    "names": [hierarch.load(preset).name for preset in presets],
    "recipe": hierarch.load_recipe("smoke").name,
}))
"""
    found = json.loads(python("-c", code, cwd=tmp_path, PYTHONPATH=installed))
    assert Path(found["file"]) == installed / "hierarch" / "__init__.py"
    assert found["presets"] == [path.with_suffix("").as_posix() for path in SPECS]
    assert found["recipe"] == "smoke"
    assert found["depths"] == [2, 2, 6, 2]
    assert found["names"] == [path.stem for path in SPECS]


def test_the_command_works_without_a_checkout(installed, tmp_path):
    swap = ("-m", "hierarch", "swap", "ablations/swin_tiny_no_shift", "--mixer", "pooling")
    text = python(*swap, cwd=tmp_path, PYTHONPATH=installed)
    assert text.startswith("# yaml-language-server")
    assert hierarch.loads(text) == hierarch.swap("ablations/swin_tiny_no_shift", "pooling")


def test_every_public_name_can_be_imported():
    everything = {}
    exec("from hierarch import *", everything)
    assert everything.keys() >= set(hierarch.__all__)
    assert (
        {
            *(
                "load",
                "loads",
                "dump",
                "build",
                "measure",
                "swap",
                "load_weights",
                "presets",
                "schema",
            ),
            *(
                "register",
                "count_rule",
                "BackboneSpec",
                "StageSpec",
                "MixerSpec",
                "Backbone",
                "Report",
            ),
            *("SpecError", "WeightsError", "CountError", "HierarchError", "__version__"),
        }
        <= set(hierarch.__all__)
        <= set(dir(hierarch))
    )
    for name in hierarch.__all__:
        assert getattr(hierarch, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hierarch' has no attribute 'laod'"):
        hierarch.laod  # noqa: B018  # to look it up is the test


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(hierarch.__file__).read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in checked.body for alias in node.names}
    assert seen == hierarch._HOME


def test_importing_the_library_does_not_import_torch(tmp_path):
    code = "import sys, hierarch; hierarch.{}; print('torch' in sys.modules)"
    assert python("-c", code.format("presets()"), cwd=tmp_path) == "False\n"
    assert python("-c", code.format("build"), cwd=tmp_path) == "True\n"
