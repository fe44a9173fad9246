"""User errors of the command line have exit status 2; --help does not import torch."""

import csv
import glob
import io
import os
import re
import shlex
import subprocess
import sys
import threading
from itertools import count, cycle
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from bad_specs import BAD

import hierarch
from hierarch.cli import app, progress

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(typer.main.get_command(app).commands)
NEW = ["--mixer", "pooling", "-o", "new.yaml"]
READERS: dict[str, list[str]] = {"validate": [], "flops": [], "show": [], "report": [], "swap": NEW}
"""The commands that read a spec, and their required options."""


def one_clear_message(err, *named):
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= hierarch.SpecError.SHOWN + 1
    assert len(err) < 2_000
    assert all(str(name) in err for name in named)
    return True


@pytest.mark.parametrize(("case", "command"), list(zip(BAD, cycle(READERS), strict=False)))
def test_a_bad_file_is_one_message_and_nothing_written(run, tmp_path, monkeypatch, case, command):
    monkeypatch.chdir(tmp_path)
    text, expected = BAD[case]
    file = tmp_path / "spec.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    status, out, err = run(command, file, *READERS[command])
    assert (status, out) == (2, "")
    assert one_clear_message(err, file)
    assert re.search(expected, err)
    assert os.listdir(tmp_path) == ["spec.yaml"]


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nope.yaml", "nope.yaml: no such file"),
        ("swin_tinny", "no such file or preset: 'swin_tinny', did you mean 'swin_tiny'?"),
        (".", ".: is a directory; a spec is a YAML file"),
        ("", ".: is a directory"),
        ("x" * 5_000, "too long"),
        ("/dev/zero", "/dev/zero: is larger than 256 kB; this is no spec"),
        ("/dev/null", "/dev/null: is empty"),
    ],
)
def test_an_invalid_source_is_one_message(run, tmp_path, monkeypatch, command, source, expected):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(command, source, *READERS[command])
    assert (status, out) == (2, "")
    assert one_clear_message(err, expected)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "args",
    [
        ["flop"],
        ["flops"],
        ["flops", "swin_tiny", "--size", "224"],
        ["flops", "swin_tiny", "--by", "color"],
        ["show", "swin_tiny", "--format", "xml"],
        ["show", "swin_tiny", "swin_small"],
        ["swap", "swin_tiny"],
        ["validate"],
        ["--colour"],
    ],
)
def test_a_mistyped_command_line_is_a_usage_message(run, args):
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: ")


PARSED = {"train", "evaluate", "predict", "ablate", "export"}
"""Commands whose example is only parsed here, since it needs images, or the weights of Swin-T: the
tests of training, of grids and of exporting run them."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_runs(run, tmp_path, monkeypatch, command):
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    example = re.search(rf"Example: hierarch ({command}.*)", app_help(command))[1]
    assert example[:50] in " ".join(out.split())
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    swin = hierarch.build("swin_tiny", stages=[{"dim": 32, "depth": 1}, {"dim": 32, "depth": 1}])
    hierarch.export_weights(swin, tmp_path / "swin_tiny.pth", layout="official")
    (tmp_path / "swin_tiny_patch4_window7_224.yaml").write_text("MODEL: {TYPE: swin}")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(example.split(">")[0])
    args = [path for word in words for path in (sorted(glob.glob(word)) or [word])]
    if command in PARSED:
        options = typer.main.get_command(app).commands[command].make_context(command, args[1:])
        assert options.params
        return
    status, out, err = run(*args)
    assert status == 0
    assert out


def app_help(command):
    return typer.main.get_command(app).commands[command].callback.__doc__


def test_the_commands_are_these():
    assert {"flops", "show", "validate", "swap", "mixers", "schema"} <= set(COMMANDS)


def python(*args, **options):
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=environment, **options
    )


# what the module of the command line has imported when it is done
IMPORTED = """
import sys
sys.argv = ["hierarch", *sys.argv[1:]]
from hierarch.cli import main
try:
    main()
except SystemExit as end:
    status = end.code or 0
print(status, *sorted({"torch", "fvcore"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "args",
    [
        *([], ["--help"], ["--version"], ["flops", "--help"], ["swap", "-h"], ["validate", "-h"]),
        ["new", "my_net"],
    ],
)
def test_help_and_version_and_a_new_spec_answer_without_torch(args, tmp_path):
    done = python("-c", IMPORTED, *args, cwd=tmp_path)
    assert done.stdout
    assert done.stderr.split() == ["0"]


def test_completion_answers_without_torch():
    words = {"_HIERARCH_COMPLETE": "complete_bash", "COMP_WORDS": "hierarch fl", "COMP_CWORD": "1"}
    done = python("-c", IMPORTED, env=words)
    assert done.stdout.split() == ["flops"]
    assert "torch" not in done.stderr


def test_a_command_that_measures_does_import_torch():
    done = python("-c", IMPORTED, "validate", "swin_tiny")
    assert done.stderr.split() == ["0", "torch"]


def test_the_package_runs_as_a_module():
    done = python("-m", "hierarch", "--version")
    assert (done.stdout, done.stderr) == (f"hierarch {hierarch.__version__}\n", "")


def test_a_name_that_is_not_utf8_is_one_message():
    done = python("-m", "hierarch", "validate", b"\xff.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert one_clear_message(done.stderr, "\\udcff.yaml: no such file")


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "seconds", "seen"), [(True, 2, True), (True, 0.1, False), (False, 2, False)]
)
@pytest.mark.parametrize(
    ("label", "command"),
    [
        ("counting", ["flops", "--sizes", "32,64"]),
        ("timing", ["bench", "--sizes", "32", "--rounds", "1", "--gemm", "0", "--no-memory"]),
    ],
)
def test_a_progress_bar_is_on_a_terminal_and_where_it_takes_over_a_second(
    run, monkeypatch, terminal, seconds, seen, label, command
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream := Stream(terminal))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=count(0, seconds).__next__))
    small = ["--set=mixer=pooling", "--set=stages=[{dim: 8, depth: 1}]", "--format=csv"]
    status, out, _ = run(command[0], "swin_tiny", *command[1:], *small)
    assert status == 0
    assert (label in stream.getvalue()) == seen
    assert seen or not stream.getvalue()
    assert label not in out
    assert len(out.splitlines()) == len(list(csv.reader(io.StringIO(out)))) > 1


def test_the_bar_is_drawn_in_the_calling_thread(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Stream(True))
    monkeypatch.setattr(progress, "DELAY", -1)
    before = threading.active_count()
    with progress.progress("working") as advance:
        advance(1, 2)
        assert threading.active_count() == before
    assert "working" in sys.stderr.getvalue()
