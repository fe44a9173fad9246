"""Tables at any width: no line is longer than the terminal, and nothing is lost or broken."""

import contextlib
import fcntl
import functools
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path

import pytest
from helpers import stream_report, tiny
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import hierarch
from hierarch.ablation.running import read_results
from hierarch.bench import explain_specs
from hierarch.complexity.architecture import architecture
from hierarch.report import FlopsReport, Listing, mixer_listing, text
from hierarch.report.export import Agreement, ExportReport, ImageCheck, SizeCheck
from hierarch.report.folding import Column, Folded, parts
from hierarch.report.formats import Line, Table
from hierarch.report.training import EvaluationReport, SizeAccuracy, TrainReport, TrainReports
from hierarch.report.weights import ConversionReport, Location

ROOT = Path(__file__).parents[1]
WIDTHS = (40, 60, 80, 120)
ESCAPE = "\x1b"


def drawn(report, width):
    return text(report, width=width).splitlines()


def words(lines):
    """How often each word is there; a header may be broken after a slash."""
    return Counter(filter(None, re.split(r"[\s/]+", " ".join(lines))))


# every report of every command that prints a table


@functools.cache
def measured(name):
    stages = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 2}]
    sizes = [32, (40, 48), 64, 96, 128, 224]
    return hierarch.measure(tiny(name=name, stages=stages), sizes=sizes)


def exported():
    agreement = Agreement(images=256, difference=1.2e-5, relative=3.4e-6, same_class=255)
    check = SizeCheck(
        size=(224, 224), batch=8, agreement=agreement, torch_seconds=(0.21,), seconds=(0.1,)
    )
    return ExportReport(
        name="swin_tiny",
        target="onnx",
        runtime="onnxruntime 1.23.1",
        dtype="float32",
        dynamic=("batch", "size"),
        path="swin_tiny.onnx",
        bytes=113_000_000,
        weight_bytes=113_000_000,
        measure="relative difference",
        tolerance=1e-4,
        sizes=(check, check),
        images=ImageCheck(agreement=agreement, right=(208, 207)),
    )


def evaluated():
    classes = tuple(f"a long name of class {i}" for i in range(12))
    confusion = tuple(tuple(1000 * i + j for j in range(12)) for i in range(12))
    size = SizeAccuracy(size=(224, 224), loss=0.5, top5=400, confusion=confusion)
    return EvaluationReport(name="swin_tiny", data="cifar10", classes=classes, sizes=(size,))


def trained():
    names = ("swin_tiny", "swin_tiny_absolute_and_relative_position")
    return TrainReports(
        tuple(
            TrainReport(
                name=name,
                run=f"runs/2026/{name}-imagenet_300",
                steps=375_000,
                epochs=300,
                loss=2.5,
                val_top1=0.812,
                val_top5=0.955,
                best_top1=0.813,
                broken=3,
            )
            for name in names
        )
    )


def converted():
    return ConversionReport(
        source_layout="mmdetection",
        layout="huggingface",
        output="converted.safetensors",
        tensors=1_329,
        bytes=349_000_000,
        ignored=("a", "b"),
        spec=None,
        assumed=(),
        location=Location(("state_dict",), "backbone."),
        candidates=(),
    )


REPORTS = {
    "flops": lambda: FlopsReport((measured("swin_tiny"), measured("a_network_with_a_long_name"))),
    "flops by module": lambda: FlopsReport((measured("tiny"),), by="module"),
    "flops of peers": lambda: FlopsReport((), (hierarch.measure_peer("timm:resnet18", [32, 64]),)),
    "compare": lambda: hierarch.compare([tiny(), tiny(mlp_ratio=3)], sizes=[32, 64]),
    "bench": lambda: hierarch.benchmark(
        [tiny()], sizes=[32], rounds=2, gemm_side=64, vs=["timm:resnet18"], memory=False
    ),
    "bench --stream": stream_report,
    "bench --explain": lambda: explain_specs(
        [hierarch.load(tiny())], sizes=[(32, 32)], modes=["training"]
    ),
    "show": lambda: architecture(hierarch.load("swin_tiny"), (224, 224)),
    "mixers": mixer_listing,
    "train": trained,
    "evaluate": evaluated,
    "ablate": lambda: read_results(ROOT / "docs/results/shifting/results.json"),
    "export": exported,
    "convert": converted,
}
REPORTS = {name: functools.cache(make) for name, make in REPORTS.items()}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_fits_any_terminal_with_all_that_is_in_it(name, width):
    report = REPORTS[name]()
    lines = drawn(report, width)
    whole = {block.text for block in report.blocks() if isinstance(block, Line)}
    assert [line for line in lines if len(line) > width and line not in whole] == []
    assert not any("…" in line or line != line.rstrip() for line in lines)
    cells = [
        cell
        for block in report.blocks()
        if isinstance(block, Table)
        for row in block.rows
        for cell in row.values()
    ]
    # a word is only broken where it is longer than a good part of the terminal
    short = Counter({w: n for w, n in words(cells).items() if len(w) <= width // 3})
    assert short - words(lines) == Counter()


@pytest.mark.parametrize("name", REPORTS)
def test_a_wide_terminal_is_used(name):
    report = REPORTS[name]()
    lines = drawn(report, 1000)
    for block in report.blocks():
        if isinstance(block, Table) and block.rows:
            [header, *_] = [
                line for line in lines if line.split() == " ".join(block.rows[0]).split()
            ]
            assert header


def test_numbers_of_the_json_are_in_the_table_at_80_columns():
    report = REPORTS["show"]()
    shown = "\n".join(drawn(report, 80))
    for part in report.to_data():
        assert f"{part['parameters']:,}" in shown
        assert f"{part['macs'] / 1e9:.3f}" in shown
        assert all(mixer in " ".join(shown.split()) for mixer in part["mixers"])


# how a table is folded

SHOWN = [
    {"part": "stage 0", "dim": "96", "mixers": "window_attention of 7 " * 3, "parameters": "1,024"},
    {"part": "total", "dim": "", "mixers": "", "parameters": "28,288,354"},
]


def test_a_table_that_fits_is_one():
    assert drawn(Listing(tuple(SHOWN)), 100)[0].split() == ["part", "dim", "mixers", "parameters"]


def test_a_text_is_wrapped_first_and_numbers_never():
    assert drawn(Listing(tuple(SHOWN)), 64) == [
        "part     dim  mixers                                  parameters",
        "stage 0   96  window_attention of 7 window_attention       1,024",
        "              of 7 window_attention of 7",
        "total                                                 28,288,354",
    ]


def test_a_text_without_room_stands_below_and_only_where_there_is_one():
    assert drawn(Listing(tuple(SHOWN)), 40) == [
        "part     dim  parameters",
        "stage 0   96       1,024",
        "total         28,288,354",
        "",
        "part     mixers",
        "stage 0  window_attention of 7",
        "         window_attention of 7",
        "         window_attention of 7",
    ]


def test_parts_repeat_their_keys_and_are_of_like_widths():
    rows = [{"name": "tiny", **{f"column {i}": f"{i},000,000" for i in range(5)}}]
    assert drawn(Listing(tuple(rows)), 50) == [
        "name   column 0   column 1   column 2",
        "tiny  0,000,000  1,000,000  2,000,000",
        "",
        "name   column 3   column 4",
        "tiny  3,000,000  4,000,000",
    ]


def test_a_header_is_wrapped_before_the_table_is_folded():
    rows = [{"name": "tiny", "memory (MB)": "1.5", "MACs/token": "12"}]
    assert drawn(Listing(tuple(rows)), 19) == [
        "      memory  MACs/",
        "name    (MB)  token",
        "tiny     1.5     12",
    ]


def test_without_room_for_the_keys_rows_are_lists():
    rows = [{"name": "a_name_of_a_network", "a": "1,000,000", "b": ""}] * 2
    assert drawn(Listing(tuple(rows)), 24) == [
        *("a_name_of_a_network", "  a  1,000,000"),
        "",
        *("a_name_of_a_network", "  a  1,000,000"),
    ]


def test_a_cell_is_no_markup():
    listing = Listing(({"[red]name": "[bold]x[/bold]", "b": "[4, 6]"},))
    assert words(drawn(listing, 80)) == Counter(
        ("[red]name", "b", "[bold]x[", "bold]", "[4,", "6]")
    )


WORDS = st.text("abcdefg_", min_size=1, max_size=9)
CELLS = st.one_of(
    st.integers(0, 10**9).map("{:,}".format),
    st.lists(WORDS, max_size=12).map(" ".join),
    st.just(""),
)


@given(st.data(), st.integers(1, 7), st.integers(1, 3), st.integers(24, 140))
def test_any_table_fits_any_width_and_is_whole(data, columns, keys, width):
    row = st.fixed_dictionaries({f"{i}a b/c": CELLS for i in range(columns)})
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(Folded(rows, keys=keys), crop=False)
    lines = stream.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    cells = words(cell for row in rows for cell in row.values())
    assert cells - words(lines) == Counter()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(10, 80))
def test_each_column_is_in_one_part(sizes, width):
    columns = [Column(str(i), ("9" * size,), numbers=True) for i, size in enumerate(sizes)]
    found = parts(columns, width, keys=1)
    assert [column.name for part in found for column in part.columns[1:]] == [
        column.name for column in columns[1:]
    ]
    assert all(part.columns[0].name == "0" for part in found)


# the command line: widths, colors


@pytest.fixture
def file(tmp_path, monkeypatch):
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.chdir(tmp_path)
    hierarch.dump(hierarch.load(tiny(head={"num_classes": 10}, input_size=32)), "tiny.yaml")
    return "tiny.yaml"


COMMANDS = {
    "flops": ("flops", "tiny.yaml", "tiny.yaml", "--sizes", "32"),
    "compare": ("compare", "tiny.yaml", "tiny.yaml", "--sizes", "32"),
    "show": ("show", "tiny.yaml"),
    "validate": ("validate", "tiny.yaml", "swin_tiny"),
    "mixers": ("mixers",),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pipe_has_80_columns_or_those_of_the_variable_and_no_colors(run, file, monkeypatch, name):
    status, out, _ = run(*COMMANDS[name])
    assert (status, ESCAPE in out) == (0, False)
    assert max(map(len, out.splitlines())) <= 80
    for width in (60, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        narrow = run(*COMMANDS[name])[1]
        assert max(map(len, narrow.splitlines())) <= width
        assert words(out.splitlines()).keys() == words(narrow.splitlines()).keys()
        assert ESCAPE not in narrow
    monkeypatch.setenv("COLUMNS", "no number")
    assert run(*COMMANDS[name])[1] == out


def test_colors_are_forced_and_refused(run, file, monkeypatch):
    plain = run(*COMMANDS["flops"])[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    colored = run(*COMMANDS["flops"])[1]
    assert f"{ESCAPE}[1;32mlinear" in colored
    bare = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in colored.splitlines()]
    assert bare == plain.splitlines()
    monkeypatch.setenv("NO_COLOR", "1")
    refused = run(*COMMANDS["flops"])[1]
    assert [line.rstrip() for line in refused.splitlines()] == plain.splitlines()


def test_a_long_line_is_wrapped_on_a_terminal_alone_and_its_path_is_whole(run, file, monkeypatch):
    path = Path("x" * 70 + ".yaml")
    path.write_text(Path(file).read_text())
    said = f"{path}: ok, tiny, 3 stages, 7 blocks"
    assert run("validate", path)[1] == f"{said}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    lines = [line.rstrip() for line in run("validate", path)[1].splitlines()]
    assert lines == [f"{path}:", "ok, tiny, 3 stages, 7 blocks"]


def on_a_terminal(*args, columns, **environment):
    """What a command writes to a pseudoterminal of so many columns."""
    own, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "hierarch", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=inherited | {"TERM": "xterm-256color"} | environment,
    ) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the process closed its end
            while chunk := os.read(own, 4096):
                written += chunk
        assert process.wait(60) == 0
    os.close(own)
    return written.decode().replace("\r\n", "\n")


def test_a_real_terminal():
    written = on_a_terminal("show", "swin_tiny", columns=80)
    assert f"{ESCAPE}[1mpart" in written
    lines = re.sub(r"\x1b\[[\d;]*m", "", written).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("28,288,354" in line for line in lines)
    assert ESCAPE not in on_a_terminal("validate", "swin_tiny", columns=60, NO_COLOR="1")


# without a command


def test_hierarch_alone_says_what_to_try(run, file):
    status, out, err = run()
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 60
    tried = [line.split("  ")[1] for line in out.splitlines() if line.startswith("  hierarch ")]
    assert len(tried) == 3
    small = ["--set=mixer=identity", "--set=stages=[{dim: 8, depth: 1}]"]
    for command in tried:
        own = [] if " new " in command else small
        assert run(*command.split()[1:], *own)[0] == 0


def test_help_has_every_command_in_a_panel(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run("--help")
    assert status == 0
    panels = re.findall(r"^╭─ (.+?) ─+╮$", out, re.MULTILINE)
    assert panels == ["Options", "Describe and see", "Measure", "Train", "Weights and files"]
