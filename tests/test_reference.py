"""The reference has every public name, and each has an example, which is run."""

import ast
import inspect
import re
from pathlib import Path

import docstrings
import fences

import hierarch
from hierarch import plots

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTED = docstrings.documented()


def imported(code: str) -> set[str]:
    """What Python code takes from hierarch's modules: "hierarch.report.text"."""
    taken = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hierarch":
            taken |= {f"{node.module}.{alias.name}" for alias in node.names}
    return taken


def shown() -> set[str]:
    """What the pages and the examples import from hierarch, modules aside."""
    fenced = [
        found["body"]
        for page in PAGES
        for found in fences.FENCE.finditer(page.read_text("utf-8"))
        if found["language"] == "python" and ">>>" not in found["body"]
    ]
    scripts = [path.read_text("utf-8") for path in ROOT.glob("examples/*.py")]
    names = set().union(*map(imported, [*fenced, *scripts]))
    return {name for name in names if not inspect.ismodule(docstrings.find(name))}


def same(name: str, other: str) -> bool:
    """Whether two names are of one object: it may be documented under a shorter one."""
    return docstrings.find(name) is docstrings.find(other)


def test_the_reference_has_every_public_name():
    missing = {f"hierarch.{name}" for name in hierarch.__all__} - DOCUMENTED.keys()
    assert not missing


def test_the_reference_has_every_plot():
    assert {f"hierarch.plots.{name}" for name in plots.__all__} <= DOCUMENTED.keys()


def test_the_reference_has_every_name_that_a_page_or_an_example_imports():
    names = shown()
    assert len(names) > 20
    assert [n for n in sorted(names) if not any(same(n, other) for other in DOCUMENTED)] == []


def test_every_name_of_the_reference_has_an_example():
    assert len(DOCUMENTED) > 100
    assert [n for n, page in DOCUMENTED.items() if docstrings.example(n, page) is None] == []


def test_a_name_without_an_example_is_found():
    page = ROOT / "docs" / "api" / "parts.md"
    assert docstrings.example("hierarch.spec.grid.ceil_div", page) is None
    assert docstrings.example("hierarch.spec.grid.MAX_SIDE", page) is None
    assert "tokens((56, 56))" in docstrings.example("hierarch.spec.grid.tokens", page)


def test_every_example_of_the_reference_is_run(pytestconfig):
    """Those of docstrings are in test_docs.py."""
    runner = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    assert [page for page in DOCUMENTED.values() if not runner.documents.should_parse(page)] == []


def test_names_in_backticks_are_links_where_they_are_public():
    line = docstrings.marked("`load` of `hierarch.report.text`, or ``x`` and `y`; `DataError`")
    assert re.findall(r":py:obj:`~?([\w.]+)`", line) == [
        "hierarch.load",
        "hierarch.report.text",
        "hierarch.errors.DataError",
    ]
    assert line.endswith("``x`` and ``y``; :py:obj:`~hierarch.errors.DataError`")
