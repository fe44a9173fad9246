"""The imports of the package, against the map in docs/architecture.md."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import hierarch

PACKAGE = Path(hierarch.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


class Row(NamedTuple):
    """A folder or module of the package, and what it may import."""

    imports: set[str]
    """Other folders and modules of the package."""
    packages: set[str]
    """Packages that are neither hierarch nor Python's own."""


def read_map(page: str) -> dict[str, Row]:
    """The rows of the page's table, from top to bottom, by place: `spec`, `errors`."""
    table = re.search(r"<!-- map -->(.*?)<!-- end -->", page, re.DOTALL)[1]
    rows = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            _, place, _, imports, packages, _ = line.split("|")
            [name] = re.findall(r"`(\w+)(?:/|\.py)`", place)
            rows[name] = Row(*({*re.findall(r"`(\w+)`", cell)} for cell in (imports, packages)))
    return rows


def places(package: Path) -> set[str]:
    """The folders of a package that hold Python files, and its modules."""
    return {
        file.relative_to(package).parts[0].removesuffix(".py") for file in package.rglob("*.py")
    }


MAP = read_map(PAGE.read_text("utf-8"))
ONLY = {
    "hierarch.engine": {"hierarch.building", "hierarch.engine", "hierarch.bench.explaining"},
    "fvcore": {"hierarch.complexity.counter"},
    "lightning": {"hierarch.train"},
    "onnxruntime": {"hierarch.exporting.targets"},
    "openvino": {"hierarch.exporting.targets"},
}
"""Modules that may only be imported from few places, finer than the map."""
NEVER = {"hierarch.train.recipe": {"torch", "torchvision", "lightning", "hierarch.building"}}
"""What a module does not import, finer than the map: a recipe is read without torch."""


def is_inside(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that code imports when it runs, inside of functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imported(other)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def imports_of(package: Path) -> Iterator[tuple[str, str, str]]:
    """(place, module, imported module) for each import of a package."""
    for file in sorted(package.rglob("*.py")):
        inner = file.relative_to(package)
        module = ".".join(["hierarch", *inner.with_suffix("").parts])
        for name in imported(ast.parse(file.read_text("utf-8"))):
            yield inner.parts[0].removesuffix(".py"), module, name


def target(name: str, known: Mapping[str, Row]) -> tuple[int, str] | None:
    """The column of the map that an imported module belongs to, and what stands there; None for
    Python's own modules, and for the package itself."""
    first, *rest = name.split(".")
    if first != "hierarch":
        return None if first in sys.stdlib_module_names else (1, first)
    return (0, rest[0]) if rest and rest[0] in known else None


def violations(package: Path, known: Mapping[str, Row] = MAP) -> list[str]:
    """The imports of a package that neither the map nor `ONLY` allows."""
    found = []
    for place, module, name in imports_of(package):
        column = target(name, known)
        allowed = [importers for of, importers in ONLY.items() if is_inside(name, {of})]
        on_map = column is None or column[1] == place or column[1] in known[place][column[0]]
        forbidden = is_inside(name, NEVER.get(module, set()))
        if not on_map or forbidden or any(not is_inside(module, of) for of in allowed):
            found.append(f"{module} imports {name}")
    return found


def unused(package: Path, known: Mapping[str, Row] = MAP) -> list[str]:
    """What the map lists as imported and the code does not import."""
    used = {(place, target(name, known)) for place, _, name in imports_of(package)}
    return [
        f"{place} does not import {name}"
        for place, row in known.items()
        for column, names in enumerate(row)
        for name in sorted(names)
        if (place, (column, name)) not in used
    ]


def upward(known: Mapping[str, Row]) -> list[str]:
    """The imports of the map that point to the importer's own row, or to one below it."""
    order = list(known)
    return [
        f"{place} imports {name}"
        for i, (place, row) in enumerate(known.items())
        for name in sorted(row.imports)
        if name not in order[:i]
    ]


def test_every_folder_and_module_is_on_the_map():
    assert {*MAP} == places(PACKAGE)


def test_the_code_imports_what_the_map_says():
    assert violations(PACKAGE) == []
    assert unused(PACKAGE) == []


def test_imports_point_up_the_map():
    assert upward(MAP) == []


def page(*rows: str) -> dict[str, Row]:
    return read_map("\n".join(["<!-- map -->", "| place |", *rows, "<!-- end -->"]))


def test_a_map_is_read_cell_by_cell():
    known = page("| `spec/` | Data. | `errors`, `files` | `pydantic` |", "| `errors.py` | . | | |")
    assert known == {"spec": Row({"errors", "files"}, {"pydantic"}), "errors": Row(set(), set())}


def test_a_map_that_differs_from_the_code_fails(tmp_path):
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "base.py").write_text("import pydantic")
    (tmp_path / "new.py").touch()
    known = page("| `spec/` | Data. | `errors` | |", "| `errors.py` | Mistakes. | | |")
    assert places(tmp_path) == {"spec", "new"} != {*known}
    assert violations(tmp_path, known) == ["hierarch.spec.base imports pydantic"]
    assert unused(tmp_path, known) == ["spec does not import errors"]
    assert upward(known) == ["spec imports errors"]


@pytest.mark.parametrize(
    ("file", "code", "imports"),
    [
        ("spec/base.py", "import torch", "torch"),
        ("spec/base.py", "from torch import nn", "torch.nn"),
        ("spec/base.py", "import an_unlisted_package", "an_unlisted_package"),
        ("spec/load.py", "def late():\n    import torch.nn as nn", "torch.nn"),
        ("spec/load.py", "from hierarch.mixers.pooling import Pooling", "hierarch.mixers.pooling"),
        ("spec/load.py", "from hierarch import nn", "hierarch.nn"),
        ("spec/claim.py", "import hierarch.report", "hierarch.report"),
        ("errors.py", "from hierarch.spec import base", "hierarch.spec.base"),
        ("mixers/new.py", "from hierarch.complexity import count", "hierarch.complexity.count"),
        ("nn/backbone.py", "try:\n    import hierarch.cli\nfinally:\n    pass", "hierarch.cli"),
        ("nn/new.py", "if TYPE_CHECKING or late:\n    import hierarch.cli", "hierarch.cli"),
        ("norms/new.py", "from hierarch.weights import load_weights", "hierarch.weights.load"),
        ("complexity/measure.py", "from hierarch.cli import common", "hierarch.cli.common"),
        ("complexity/measure.py", "import fvcore.nn", "fvcore.nn"),
        ("complexity/measure.py", "import rich", "rich"),
        ("report/peer.py", "import typer", "typer"),
        ("report/peer.py", "import torch", "torch"),
        ("report/bench.py", "from hierarch.bench import timing", "hierarch.bench.timing"),
        ("complexity/measure.py", "from hierarch.bench import benchmark", "hierarch.bench.bench"),
        ("nn/new.py", "import hierarch.bench", "hierarch.bench"),
        ("nn/stage.py", "from hierarch import engine", "hierarch.engine"),
        ("blocks/new.py", "from hierarch.engine import streaming", "hierarch.engine.streaming"),
        ("activations/new.py", "import hierarch.building", "hierarch.building"),
        ("weights/load.py", "from hierarch.engine import packing", "hierarch.engine.packing"),
        ("engine/new.py", "from hierarch.building import build", "hierarch.building.build"),
        ("bench/timing.py", "from hierarch import engine", "hierarch.engine"),
        ("bench/timing.py", "from rich.table import Table", "rich.table"),
        ("bench/timing.py", "import hierarch.cli", "hierarch.cli"),
        ("bench/latency.py", "from hierarch.swapping import swap", "hierarch.swapping.swap"),
        ("swapping.py", "import hierarch.complexity", "hierarch.complexity"),
        ("comparing.py", "from hierarch.cli import common", "hierarch.cli.common"),
        ("bench/timing.py", "import onnxruntime", "onnxruntime"),
        ("train/recipe.py", "import torch", "torch"),
        ("train/recipe.py", "from hierarch.building import build", "hierarch.building.build"),
        ("train/loop.py", "from hierarch.cli.progress import progress", "hierarch.cli.progress"),
        ("building.py", "from hierarch.train import recipe", "hierarch.train.recipe"),
        ("weights/load.py", "from lightning.fabric import Fabric", "lightning.fabric.Fabric"),
        ("weights/load.py", "from ruamel.yaml import YAML", "ruamel.yaml"),
    ],
)
def test_an_import_that_is_not_on_the_map_fails(tmp_path, file, code, imports):
    path = tmp_path / "hierarch" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"import math\n{code}\n")
    [found] = violations(tmp_path / "hierarch")
    module = file.removesuffix(".py").replace("/", ".")
    assert found.startswith(f"hierarch.{module} imports {imports}")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("spec/parts.py", "if TYPE_CHECKING:\n    from torch import nn"),
        ("spec/load.py", "import hierarch\nfrom hierarch import __version__"),
        ("mixers/new.py", "import torch\nfrom hierarch.spec.parts import MixerSpec"),
        ("complexity/counter.py", "from fvcore.nn import jit_analysis"),
        ("complexity/measure.py", "from hierarch.report import Report"),
        ("bench/run.py", "from hierarch.complexity import measure\nimport torch"),
        ("cli/common.py", "import typer, rich\nfrom hierarch.report import table"),
    ],
)
def test_an_import_that_is_on_the_map_passes(tmp_path, file, code):
    path = tmp_path / "hierarch" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert violations(tmp_path / "hierarch") == []
