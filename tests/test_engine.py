"""The engine can be removed or disabled, and explains which way each operation runs."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import noise, perturb, tiny
from torch._inductor import config

import hierarch
from hierarch import engine
from hierarch.engine import torch_private
from hierarch.engine.seam import dispatch
from hierarch.engine.table import SEAM

ROOT = Path(hierarch.__file__).parents[1]
HEAD = {"num_classes": 5}


def output_of(program, *, path=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", program]
    ran = subprocess.run(command, cwd=path, env=environment, capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def attributes():
    return [getattr(op.owner, op.name) for op in SEAM.ops]


def test_a_disabled_engine_restores_the_definitions_of_nn():
    definitions = [op.definition for op in SEAM.ops]
    for op in SEAM.ops:
        assert op.definition.__module__.startswith("hierarch.nn.")
        assert op.definition.__qualname__ == op.label
    before = attributes()
    assert not {*before} & {*definitions}
    with engine.disabled():
        assert attributes() == definitions
        with engine.disabled():
            pass
        assert attributes() == definitions
    assert SEAM.runner is dispatch
    assert not {*attributes()} & {*definitions}


def test_an_image_passes_few_files_and_calls():
    """Counts calls below `Backbone.forward` in the package, without comprehensions."""
    model, images = perturb(hierarch.build("swin_tiny")), noise(1, 3, 224, 224)
    files, names, depths = set(), [], []

    def profile(frame, event, argument):
        code = frame.f_code
        inside = code.co_filename.startswith(str(ROOT / "hierarch"))
        if not inside or code.co_name in ("<listcomp>", "<genexpr>", "<dictcomp>"):
            return
        if event == "call":
            files.add(code.co_filename)
            names.append(code.co_name)
            depths.append(len(names) - 1)
        elif event == "return":
            names.pop()

    with torch.no_grad(), engine.disabled():
        sys.setprofile(profile)
        try:
            model(images)
        finally:
            sys.setprofile(None)
    assert not names
    assert len(files) <= 14
    assert 5 < max(depths) <= 9


@pytest.mark.parametrize(
    "question",
    ["compiling", "tracing", "is_grad_enabled", "autocast", "_hooks", "device.type ==", "is_cpu"],
)
def test_no_file_of_the_network_asks_how_it_runs(question):
    for file in (ROOT / "hierarch" / "nn").glob("*.py"):
        assert question not in file.read_text(), file


# without the folder

WITHOUT_ENGINE = """
import importlib.util
import hierarch
from hierarch.testing import check_mixer

assert importlib.util.find_spec("hierarch.engine") is None
print(hierarch.measure("swin_tiny", sizes=[224]).sizes[0].macs)
check_mixer({"type": "window_attention", "head_dim": 8, "window_size": 4, "shift_size": 2})
"""


def copied(folder, *names):
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


def test_the_library_counts_and_checks_without_the_engine(tmp_path):
    copied(tmp_path, "hierarch", "specs")
    shutil.rmtree(tmp_path / "hierarch" / "engine")
    assert output_of(WITHOUT_ENGINE, path=tmp_path).strip() == "4509194496"


SMALL = "not swin_s and not swin_b and not 448"  # only deeper, wider and larger than the others


SUITES = ("tests/test_swin_mlp_parity.py", "tests/test_swin_parity.py")


@pytest.mark.parametrize("deleted", [True, False])
def test_the_parity_suites_pass_without_the_engine(tmp_path, deleted):
    """Both in one process, which imports the other libraries once."""
    copied(tmp_path, "hierarch", "specs", "tests", "docs", "conftest.py", "pyproject.toml")
    if deleted:
        shutil.rmtree(tmp_path / "hierarch" / "engine")
    else:
        with open(tmp_path / "tests" / "conftest.py", "a") as conftest:
            conftest.write(DISABLED)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *SUITES, "-k", SMALL]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("PYTEST_ADDOPTS", None)
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert " passed" in ran.stdout


DISABLED = """

@pytest.fixture(autouse=True)
def without_the_engine():
    from hierarch import engine

    with engine.disabled():
        yield
"""


# private names of torch

NAMES = {
    "tracing state": "torch._C._get_tracing_state",
    "dispatch modes": "torch._C._len_torch_dispatch_stack",
    "function modes": "torch._C._len_torch_function_stack",
    "transforms": "torch._C._functorch",
    "interpreters": "torch._C._functorch.peek_interpreter_stack",
    "forward gradients": "torch.autograd.forward_ad._current_level",
    "softmax's gradient": "torch._softmax_backward_data",
    "oneDNN": "torch._C._has_mkldnn",
    "oneDNN's linear layer": "torch.ops.mkldnn._linear_pointwise",
    "oneDNN's order": "torch.ops.mkldnn._reorder_linear_weight",
    "oneDNN's bfloat16": "torch.ops.mkldnn._is_mkldnn_bf16_supported",
    "MKL": "torch._C.has_mkl",
    "the library's file": "torch._C.__file__",
    "global forward hooks": "torch.nn.modules.module._global_forward_hooks",
    "global forward pre hooks": "torch.nn.modules.module._global_forward_pre_hooks",
    "global backward hooks": "torch.nn.modules.module._global_backward_hooks",
    "global backward pre hooks": "torch.nn.modules.module._global_backward_pre_hooks",
}
OF_THE_COMPILER = {
    "known sizes": "torch.fx.experimental.symbolic_shapes.statically_known_true",
    "settings": "torch._inductor.config",
    "frozen weights": "torch._inductor.config.freezing",
}
"""Names that are looked up when a program is compiled."""
MADE_ANEW = {"default"}
"""An operator's overload, which torch makes when it is asked for: it cannot be taken away."""


def names_asked_for(tree):
    """The last part of each name that code looks up, in case it is there."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("getattr"), args=[_, ast.Constant(name), *_]):
                yield name
            case ast.Call(func=ast.Name("_mkldnn"), args=[ast.Constant(name)]):
                yield name
            case ast.ListComp(
                elt=ast.Call(func=ast.Name("getattr"), args=[_, ast.JoinedStr() as name, *_]),
                generators=[ast.comprehension(target=ast.Name(variable), iter=values)],
            ):
                for value in ast.literal_eval(values):
                    yield eval(ast.unparse(name), {variable: value})
            case ast.Try(body=[ast.ImportFrom(names=imported)]):
                yield from (alias.name for alias in imported)


def test_every_private_name_that_is_looked_up_is_taken_away_once():
    tree = ast.parse(Path(torch_private.__file__).read_text())
    listed = {name.rpartition(".")[2] for name in (NAMES | OF_THE_COMPILER).values()}
    assert {*names_asked_for(tree)} - MADE_ANEW == listed


def test_without_a_private_name_of_the_compiler_nothing_is_known(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # which cannot be without it
    assert torch_private.is_known(True)
    monkeypatch.delattr(OF_THE_COMPILER["known sizes"])
    assert not torch_private.is_known(True)


@pytest.mark.parametrize("name", ["settings", "frozen weights"])
def test_without_the_compilers_settings_no_weights_are_frozen(monkeypatch, name):
    with config.patch(freezing=True):
        assert torch_private.freezes()
        if name == "settings":
            monkeypatch.setitem(sys.modules, OF_THE_COMPILER[name], None)
            monkeypatch.delattr(torch._inductor, "config")
        else:
            monkeypatch.setattr(torch._inductor, "config", SimpleNamespace())
        assert not torch_private.freezes()


WITHOUT = """
import importlib, json, operator, os, sys, traceback
sys.path.insert(0, sys.argv[1])
import torch
import torch.utils._python_dispatch, torch.overrides

from helpers import noise, perturb, tiny

def outputs(model, images):
    model.zero_grad()
    with torch.no_grad():
        out = model(images)
    x = images.clone().requires_grad_()
    model(x).square().sum().backward()
    return out, x.grad, *(p.grad.clone() for p in model.parameters())

def compare(module, name):
    operators = module.startswith("torch.ops")
    home = operator.attrgetter(module[6:])(torch) if operators else importlib.import_module(module)
    assert not [name for name in sys.modules if name.startswith("hierarch.engine")]
    saved = getattr(home, name)
    # torch makes an operator anew where it is asked for
    setattr(home, name, None) if operators else delattr(home, name)
    import hierarch, hierarch.engine
    setattr(home, name, saved)  # torch's own code goes on calling it
    model = perturb(hierarch.build(tiny(head={"num_classes": 5})))
    images = noise(2, 3, 64, 64)
    found = outputs(model, images)
    with hierarch.engine.disabled():
        wanted = outputs(model, images)
    for one, other in zip(found, wanted, strict=True):
        scale = max(1, float(other.abs().max()))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * scale)

for module, name in json.loads(sys.argv[2]):
    child = os.fork()
    if child == 0:
        try:
            compare(module, name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Forks a process for each name, which has imported torch and nothing of the engine; prints their
exit statuses."""


@pytest.fixture(scope="module")
def statuses():
    """By name: (exit status, what was written to stderr by all)."""
    parted = [name.rpartition(".")[::2] for name in NAMES.values()]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT, Path(__file__).parent, json.dumps(parted)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    found = map(int, ran.stdout.split())
    return {name: (status, ran.stderr) for name, status in zip(NAMES, found, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_without_a_private_name_of_torch_the_result_is_the_same(name, statuses):
    status, errors = statuses[name]
    assert status == 0, errors


def test_private_names_of_torch_are_used_in_one_file():
    private = ("torch._C", "torch._inductor", "torch._dynamo", "torch._functorch", "torch.fx")
    for file in (ROOT / "hierarch").rglob("*.py"):
        folder = file.relative_to(ROOT / "hierarch").parts[0]
        if file.name != "torch_private.py" and folder in ("nn", "engine", "mixers", "blocks"):
            text = file.read_text()
            assert not any(name in text for name in private), file


# explain


def network(**fields):
    return perturb(hierarch.build(tiny(head=HEAD, **fields)))


@torch.no_grad()
def test_explain_reports_streamed_stages(onednn_faster):
    found = engine.explain(network(), noise(1, 3, 64, 64))
    assert {found.way(f"stages.{i}", "Stage.forward") for i in range(3)} == {"streamed"}
    assert found.way("stages.0.blocks.0.mlp", "mlp") == "GELU in the multiplication"
    assert found.way("stages.0.blocks.0.mixer", "MaskedWindowMixer.masks") == "remembered"


def reasons(model, images, module, operation):
    for step in engine.explain(model, images).steps:
        if (step.module, step.operation) == (module, operation):
            return [reason for _, reason in step.refused]
    raise AssertionError(f"{operation} of {module} did not run")


@torch.no_grad()
def test_explain_names_the_hook_that_refuses():
    model, images = network(), noise(1, 3, 64, 64)
    model.stages[1].blocks[0].register_forward_hook(lambda *call: None)
    assert "a hook on stages.1.blocks.0" in reasons(model, images, "stages.1", "Stage.forward")
    assert engine.explain(model, images).way("stages.0", "Stage.forward") == "streamed"
    with torch.autocast("cpu"):
        assert "autocast" in reasons(model, images, "stages.0.blocks.0.mlp", "mlp")


def test_explain_reports_what_refuses_in_training():
    model, images = network(drop_rate=0.1).train(), noise(1, 3, 64, 64)
    name = "stages.0.blocks.0.mlp"
    assert f"dropout in the MLP ({name}.drop)" in reasons(model, images, name, "mlp")
    model = network().double().train()
    assert "float64" in reasons(model, images.double(), name, "mlp")


def test_explain_reports_only_definitions_while_the_engine_is_disabled():
    with engine.disabled():
        found = engine.explain(network(), noise(1, 3, 64, 64))
    assert {step.way for step in found.steps} == {"definition"}


def test_a_module_that_did_not_run_is_an_error():
    found = engine.explain(network(), noise(1, 3, 64, 64))
    with pytest.raises(KeyError, match=r"mlp of 'nowhere' did not run"):
        found.way("nowhere", "mlp")


def test_blocks_that_run_alike_share_a_row_of_the_table():
    steps = [
        engine.Step(f"stages.{i}.blocks.{j}.mlp", "mlp", "definition", 2, (("fast", why),))
        for i, j, why in [
            (0, 0, "a hook on stages.0.blocks.0"),
            (0, 1, "a hook on stages.0.blocks.1"),
            (0, 2, "autocast"),
            (0, 3, "a hook on stages.0.blocks.3"),
            (1, 0, "autocast"),
        ]
    ]
    [table] = engine.Explanation(tuple(steps), "title").blocks()
    assert [list(row.values()) for row in table.rows] == [
        [
            "stages.0.blocks.0-1,3.mlp",
            "mlp",
            "definition",
            "6",
            "fast: a hook on stages.0.blocks.*",
        ],
        ["stages.0.blocks.2.mlp", "mlp", "definition", "2", "fast: autocast"],
        ["stages.1.blocks.0.mlp", "mlp", "definition", "2", "fast: autocast"],
    ]


@pytest.mark.parametrize("format", ["table", "json", "csv", "markdown"])
def test_the_command_line_explains(run, tmp_path, format):
    spec = tmp_path / "spec.yaml"
    spec.write_text(hierarch.dump(hierarch.load(tiny(head=HEAD, drop_rate=0.1))))
    options = ["--sizes", "40", "--mode", "forward,training", "--format", format]
    status, shown, errors = run("bench", spec, "--explain", *options)
    assert status == 0, errors
    for word in ("streamed", "tiny, 40x40, batch 1, float32, training", "dropout in the MLP"):
        assert word in shown
    if format == "json":
        forward, training = json.loads(shown)
        ways = {step["way"] for step in forward["steps"] if step["operation"] == "Stage.forward"}
        assert ways == {"streamed"}
        [step] = [s for s in training["steps"] if s["module"] == "stages.0.blocks.0.mlp"]
        refused = step["refused"][0]
        assert refused["reason"] == "dropout in the MLP (stages.0.blocks.0.mlp.drop)"


def test_the_command_line_explains_no_peers(run):
    status, _, errors = run("bench", "swin_tiny", "--explain", "--vs", "timm:resnet18")
    assert status != 0
    assert "leave out --vs" in errors
