"""The wheel and the sdist, the wheel installed elsewhere, and the public names."""

import ast
import importlib.util
import json
import re
import sys
import tarfile
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from environments import ROOT, environment, output
from ruamel.yaml import YAML

import hierarch

SPECS = sorted(path.relative_to(ROOT / "specs") for path in (ROOT / "specs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    # where the build backend is installed, nothing is fetched for a build of its own
    local = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    output(sys.executable, "-m", "build", *local, "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    [wheel] = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of a new environment with the installed wheel."""
    programs = environment(tmp_path_factory.mktemp("elsewhere") / "env")
    options = ("--quiet", "--no-deps", "--no-index")
    output(programs / "python", "-m", "pip", "install", *options, wheel, cwd=programs)
    return programs


def test_both_distributions_pass_the_strict_check(built):
    files = sorted(built.iterdir())
    assert [file.name.split("-")[0] for file in files] == ["hierarch_vision"] * 2
    checked = output(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=built)
    assert checked.count("PASSED") == 2


def test_the_sdist_has_all_that_the_tests_and_the_docs_need(built):
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("hierarch", "specs", "recipes", "tests", "docs", "examples")
    wanted = {
        file.relative_to(ROOT).as_posix()
        for folder in folders
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".yaml", ".md", ".json", ".csv", ".safetensors", ".typed")
    }
    assert wanted <= names
    alone = {
        "conftest.py",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    }
    assert alone | {"CITATION.cff", "action.yml", ".pre-commit-hooks.yaml"} <= names


def test_the_wheel_has_the_package_the_specs_and_the_types(wheel):
    names = set(ZipFile(wheel).namelist())
    assert names >= {f"hierarch/specs/{path.as_posix()}" for path in SPECS}
    recipes = {f"hierarch/recipes/{path.name}" for path in (ROOT / "recipes").iterdir()}
    assert len(recipes) > 1
    assert names >= recipes
    page = {f"hierarch/page/page.{suffix}" for suffix in ("html", "css", "js")}
    assert names >= page
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
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_citation_is_of_this_version():
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert (citation["version"], citation["license"]) == (hierarch.__version__, project["license"])
    assert project["version"] == hierarch.__version__


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_of_the_repository_lead_there(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


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
    found = json.loads(output(installed / "python", "-c", code, cwd=tmp_path))
    assert Path(found["file"]).is_relative_to(installed.parent)
    assert found["presets"] == [path.with_suffix("").as_posix() for path in SPECS]
    assert found["recipe"] == "smoke"
    assert found["depths"] == [2, 2, 6, 2]
    assert found["names"] == [path.stem for path in SPECS]


def test_the_command_works_without_a_checkout(installed, tmp_path):
    swap = ("swap", "ablations/swin_tiny_no_shift", "--mixer", "pooling")
    text = output(installed / "hierarch", *swap, cwd=tmp_path)
    assert text == output(installed / "python", "-m", "hierarch", *swap, cwd=tmp_path)
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


def test_importing_the_library_does_not_import_torch(installed, tmp_path):
    code = "import sys, hierarch; hierarch.{}; print('torch' in sys.modules)"
    for name, imported in [("presets()", "False\n"), ("build", "True\n")]:
        found = output(installed / "python", "-c", code.format(name), cwd=tmp_path)
        assert found == imported


def test_every_extra_that_is_told_of_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = project["optional-dependencies"].keys()
    told = set()
    for path in [*(ROOT / "hierarch").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text("utf-8")
        told.update(re.findall(r'(?:require\(.*|^ {4})extra="([a-z]+)"', text, re.MULTILINE))
        for names in re.findall(r"hierarch-vision\[([a-z,]+)\]", text):
            told.update(names.split(","))
    assert {"plot", "onnx", "executorch", "train"} <= told
    assert told <= known
