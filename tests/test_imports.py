"""The layers of the code: spec, then nn with the parts, then engine, and so on, one way only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hierarch

PACKAGE = Path(hierarch.__file__).parent


def names(*words: str) -> set[str]:
    return {f"hierarch.{word}" for word in words}


PARTS = names("mixers", "blocks", "norms", "activations", "stems", "downsamples")
NETWORK = names("nn") | PARTS
ABOVE = names("building", "complexity", "cli", "weights", "testing", "bench", "train")
TRAIN = "hierarch.train"
NEVER = {
    "hierarch.spec": {"torch", "einops", "hierarch.engine", "hierarch.report", *NETWORK, *ABOVE},
    **{part: {"hierarch.engine", "hierarch.report", *ABOVE} for part in sorted(NETWORK)},
    "hierarch.errors": {"torch", *names("spec", "engine", "report"), *NETWORK, *ABOVE},
    "hierarch.files": {"torch", *names("spec", "engine", "report"), *NETWORK, *ABOVE},
    "hierarch.engine": ABOVE,
    "hierarch.building": ABOVE - names("building"),
    "hierarch.complexity": names("cli", "weights", "testing", "bench", "train"),
    "hierarch.bench": names("cli", "weights", "testing", "train"),
    "hierarch.weights": names("cli", "complexity", "bench", "train"),
    "hierarch.train": names("cli", "complexity", "testing"),
    "hierarch.train.recipe": {"torch", "lightning", "torchvision", *NETWORK, *ABOVE - {TRAIN}},
    "hierarch.report": {"torch", "hierarch.engine", *NETWORK, *ABOVE},
}
"""What a part of the library does not import."""
ONLY = {
    "hierarch.engine": names("building", "engine", "bench.explaining"),
    "fvcore": {"hierarch.complexity.counter"},
    "rich": {"hierarch.report", "hierarch.cli"},
    "typer": {"hierarch.cli"},
    "ruamel": {"hierarch.spec"},
    "lightning": {"hierarch.train"},
    "onnxruntime": {"hierarch.bench.runtimes"},
    "openvino": {"hierarch.bench.runtimes"},
}
"""The one part of the library that imports a package."""


def is_inside(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that code imports when it runs, inside of functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def violations(package: Path) -> list[str]:
    found = []
    for file in sorted(package.rglob("*.py")):
        here = ".".join(file.relative_to(package.parent).with_suffix("").parts)
        for module in imported(ast.parse(file.read_text())):
            never = [no for part, no in NEVER.items() if is_inside(here, {part})]
            only = [places for name, places in ONLY.items() if is_inside(module, {name})]
            if any(is_inside(module, no) for no in never) or any(
                not is_inside(here, places) for places in only
            ):
                found.append(f"{here} imports {module}")
    return found


def test_imports_point_one_way():
    assert violations(PACKAGE) == []


def test_every_folder_is_looked_at():
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    counted = {part.removeprefix("hierarch.") for part in NEVER} | {"cli"}
    assert folders <= counted  # the command line may import everything
    counter = ast.parse((PACKAGE / "complexity" / "counter.py").read_text())
    assert any(is_inside(module, {"fvcore"}) for module in imported(counter))


@pytest.mark.parametrize(
    ("file", "code", "imports"),
    [
        ("spec/base.py", "import torch", "torch"),
        ("spec/base.py", "from torch import nn", "torch.nn"),
        ("spec/load.py", "def late():\n    import torch.nn as nn", "torch.nn"),
        ("spec/load.py", "from hierarch.mixers.pooling import Pooling", "hierarch.mixers.pooling"),
        ("spec/load.py", "from hierarch import nn", "hierarch.nn"),
        ("spec/claim.py", "import hierarch.report", "hierarch.report"),
        ("errors.py", "from hierarch.spec import base", "hierarch.spec.base"),
        ("mixers/new.py", "from hierarch.complexity import count", "hierarch.complexity.count"),
        ("nn/backbone.py", "try:\n    import hierarch.cli\nfinally:\n    pass", "hierarch.cli"),
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
        ("bench/timing.py", "from rich.table import Table", "rich.table"),
        ("bench/timing.py", "import hierarch.cli", "hierarch.cli"),
        ("bench/timing.py", "import onnxruntime", "onnxruntime"),
        ("train/recipe.py", "import torch", "torch"),
        ("train/recipe.py", "from hierarch.building import build", "hierarch.building.build"),
        ("train/loop.py", "from hierarch.cli.progress import progress", "hierarch.cli.progress"),
        ("building.py", "from hierarch.train import recipe", "hierarch.train.recipe"),
        ("weights/load.py", "from lightning.fabric import Fabric", "lightning.fabric.Fabric"),
        ("weights/load.py", "from ruamel.yaml import YAML", "ruamel.yaml"),
    ],
)
def test_an_import_the_other_way_is_found(tmp_path, file, code, imports):
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
        ("spec/parts.py", "import torchlike"),
        ("mixers/new.py", "import torch\nfrom hierarch.spec.parts import MixerSpec"),
        ("complexity/counter.py", "from fvcore.nn import jit_analysis"),
        ("complexity/measure.py", "from hierarch.report import Report"),
        ("bench/run.py", "from hierarch.complexity import measure\nimport torch"),
        ("cli/common.py", "import typer, rich\nfrom hierarch.report import table"),
    ],
)
def test_an_import_the_right_way_is_not(tmp_path, file, code):
    path = tmp_path / "hierarch" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert violations(tmp_path / "hierarch") == []
