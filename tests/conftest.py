"""Fixtures: a fixed random seed for every test, and the command line, run in this process."""

import gc
import sys

import pytest
import torch
from browser import started

from hierarch.cli import main

OF_OTHERS = {
    f"test_{name}.py"
    for name in (
        *("axes", "cli_formats", "cli_input", "compile", "complexity", "engine", "explainer_page"),
        *("export", "families", "infer", "load", "match", "maxvit", "mixers", "onnx", "packing"),
        *("page", "peers", "site", "streaming", "swap", "swin_parity", "weights_adapt"),
        *("weights_peers", "wrappers"),
    )
}
"""Tests that spend their time in torch's compiler, in fvcore, in browsers and in loops: measuring
their coverage takes half as long again, and the others run what is ours."""
LONGEST = [
    *("test_compile.py", "test_onnx.py", "test_complexity.py", "test_match.py", "test_mixers.py"),
    *("test_swap.py", "test_train_kill.py", "test_export_command.py", "test_ablation.py"),
    *("test_families.py", "test_axes.py", "test_export.py", "test_ci.py", "test_train_ddp.py"),
    *("test_wrappers.py", "test_streaming.py", "test_site.py", "test_peers.py", "test_engine.py"),
    *("test_bench.py", "test_infer.py", "swapping.md", "getting-started.md"),
]
"""Files that take a minute or so, the longest first: a file stays in one process, and one that
begins last would leave the other process with nothing to do."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in OF_OTHERS:
            item.add_marker("no_cover")
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
    gc.set_threshold(
        50_000, 20, 50
    )  # else half a million objects of libraries are gone through often


@pytest.fixture(autouse=True)
def seeded():
    """A test's weights do not depend on which tests came before it."""
    torch.manual_seed(0)


@pytest.fixture
def one_thread():
    """torch computes in one thread, as every process of a parallel run of the tests does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def onednn_faster(monkeypatch):
    """A processor on which oneDNN multiplies faster than MKL, whatever the one here is."""
    from hierarch.engine import onednn  # here, since tests run without the engine, too

    monkeypatch.setattr(onednn, "MKL_IS_FASTER", False)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line: (exit status, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["hierarch", *map(str, args)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window, one for all tests of a process; see browser.py."""
    with started() as opened:
        yield opened
