"""The two set-up commands of the README."""

import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
INSTALLED = "python3 -m venv .venv && .venv/bin/pip install -q -e "
REPORT = f"{INSTALLED}. && .venv/bin/hierarch flops specs/swin_tiny.yaml"
TESTS = f"{INSTALLED}'.[test]' && .venv/bin/pytest"


def fences(text: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_there_are_two_commands_of_one_line_each():
    assert fences(README) == [f"{REPORT}\n", f"{TESTS}\n"]


def test_getting_started_opens_with_the_same_line():
    text = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
    assert fences(text) == [f"{REPORT}\n"]


def test_everything_that_the_commands_name_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (ROOT / "specs" / "swin_tiny.yaml").is_file()
    assert "test" in project["optional-dependencies"]
    assert "hierarch" in project["scripts"]


def test_ci_runs_the_second_line():
    script = ROOT / ".ci" / "run"
    assert TESTS in script.read_text("utf-8").splitlines()
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?:)([^)#]+)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).is_file()
