"""One protocol for all reports: every command in every format, and no format without a writer."""

import csv
import io
import json
import sys
from itertools import pairwise
from typing import ClassVar, Literal

import pytest
from helpers import stream_report, tiny
from rich.console import Console

import hierarch
from hierarch.cli.common import Format
from hierarch.errors import FormatError, Problem
from hierarch.report import (
    FORMATS,
    FlopsReport,
    Listing,
    SwapReport,
    ValidatedSpec,
    Validation,
    mixer_listing,
    text,
)
from hierarch.report.formats import Line, Paragraph, Table, Title, draw, latex, markdown
from hierarch.report.latex import escaped
from hierarch.spec import registry
from hierarch.spec.swap import explain

REPORTS = {
    "Report": lambda: hierarch.measure(tiny(), sizes=[32, 48]),
    "PeerReport": lambda: hierarch.measure_peer("timm:resnet18", [32]),
    "FlopsReport": lambda: FlopsReport((hierarch.measure(tiny(), sizes=[32]),) * 2, by="part"),
    "BenchReport": lambda: hierarch.benchmark([tiny()], sizes=[32], rounds=1, memory=False),
    "StreamReport": stream_report,
    "Architecture": lambda: architecture(),
    "Validation": lambda: Validation((ValidatedSpec(source="a", name="b", stages=1, blocks=2),)),
    "MixerListing": mixer_listing,
    "SwapReport": lambda: SwapReport(explain("swin_tiny", "pooling"), layout_kept=True),
    "Comparison": lambda: hierarch.compare([tiny(), tiny(mlp_ratio=3)], sizes=[32, 48]),
    "Listing": lambda: Listing(({"a": "1", "b": "2"},)),
}
COMMANDS = {
    "flops": ["flops", "FILE", "--sizes", "32"],
    "compare": ["compare", "FILE", "swin_tiny", "--sizes", "32"],
    "bench": ["bench", "FILE", "--sizes=32", "--rounds=1", "--gemm=0", "--no-memory"],
    "show": ["show", "FILE"],
    "validate": ["validate", "FILE"],
    "mixers": ["mixers"],
    "swap": ["swap", "FILE", "--mixer", "pooling", "-o", "FILE.new.yaml"],
}


def architecture():
    from hierarch.complexity.architecture import architecture

    return architecture(hierarch.load(tiny()), (32, 32))


def rows(written):
    return list(csv.DictReader(io.StringIO(written)))


@pytest.fixture
def command(tmp_path):
    path = tmp_path / "tiny.yaml"
    hierarch.dump(hierarch.load(tiny(head={"num_classes": 10})), path)
    return lambda name: [word.replace("FILE", str(path)) for word in COMMANDS[name]]


# every report in every format


@pytest.mark.parametrize("kind", REPORTS)
def test_every_report_is_written_in_every_format(kind):
    report = REPORTS[kind]()
    written = {format: text(report, format) for format in FORMATS}
    assert all(one.endswith("\n") and not one.endswith("\n\n") for one in written.values())
    assert json.loads(written["json"]) == report.to_data()
    records = report.records()
    assert [list(row) for row in rows(written["csv"])] == [list(records[0])] * len(records)
    assert [list(row.values()) for row in rows(written["csv"])] == [
        ["" if value is None else str(value) for value in record.values()] for record in records
    ]
    cells = [c for b in report.blocks() if isinstance(b, Table) for r in b.rows for c in r.values()]
    lines = [block.text for block in report.blocks() if isinstance(block, Line)]
    assert cells or lines
    for cell in cells:
        assert escaped(cell) in written["latex"]
    for format in ("table", "markdown"):
        unfolded = "".join(written[format].split())
        assert all("".join(line.split()) in unfolded for line in lines)
        # a wide cell is folded in a terminal, so only its first word is sure to be in one piece
        assert all(cell.split()[0].split("/")[0] in unfolded for cell in cells if cell)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_writes_one_document_in_every_format(run, command, name):
    for format in FORMATS:
        status, out, err = run(*command(name), "--format", format)
        assert (status, err) == (0, "")
        if format == "json":
            assert json.loads(out)
        elif format == "csv":
            assert rows(out)
            assert not any(None in row or None in row.values() for row in rows(out))
        else:
            assert out.strip()
            assert "\x1b" not in out


def test_the_python_and_the_command_write_the_same(run, command):
    report = hierarch.measure(command("flops")[1], sizes=[32])
    for format in FORMATS:
        _, out, _ = run(*command("flops"), "--format", format)
        assert out == text(FlopsReport((report,)), format)


def test_a_report_draws_itself_as_the_command_does():
    report = hierarch.measure(tiny(), sizes=[32])
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None, highlight=False).print(report)
    drawn = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert drawn == text(report).splitlines()
    assert report.markdown() + "\n" == text(report, "markdown")


# a format that nobody writes


def test_the_command_line_offers_exactly_the_formats_that_are_written():
    assert [format.value for format in Format] == list(FORMATS)


@pytest.mark.parametrize("format", ["xml", "", "TABLE", None, "x" * 5_000])
def test_an_unknown_format_is_a_value_error_that_names_the_known_ones(format):
    with pytest.raises(ValueError, match=r"known: table, json, csv, markdown, latex$") as caught:
        text(REPORTS["Listing"](), format)
    assert isinstance(caught.value, FormatError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_format_is_a_usage_error_of_every_command(run, command, name):
    status, out, err = run(*command(name), "--format", "xml")
    assert (status, out) == (2, "")
    assert err.startswith("Usage: ")
    assert all(format in err for format in FORMATS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_format_that_is_offered_and_not_written_fails_loudly(
    run, command, monkeypatch, name, format
):
    monkeypatch.delitem(FORMATS, format)
    status, out, err = run(*command(name), "--format", format)
    assert (status, out) == (2, "")
    known = ", ".join(FORMATS)
    assert err == f"error: unknown report format {format!r}; known: {known}\n"
    assert format not in known


# blocks


def test_a_blank_line_stands_before_a_title_a_table_and_the_text_after_one():
    rows = [{"a": "1"}]
    blocks = [
        *(Title("first", "1"), Table(rows), Table(rows, "head"), Paragraph("why", lead="so")),
        *(Paragraph("more"), Table([]), Title("second", "2"), Line("x" * 200)),
    ]
    stream = io.StringIO()
    Console(file=stream, width=40, color_system=None).print(draw(blocks), crop=False)
    drawn = stream.getvalue()
    assert drawn.splitlines() == [
        *("first  1", "", "a", "1", "", "head", "a", "1", "", "so: why", "more", ""),
        *("second  2", "", "x" * 200),
    ]
    table = "| a |\n| --- |\n| 1 |"
    assert markdown(blocks).split("\n\n") == [
        *("**first**: 1", table, "**head**", table, "**so**: why", "more", "**second**: 2"),
        "- " + "x" * 200,
    ]


def test_a_cell_does_not_break_a_markdown_table():
    listing = Listing(({"name": "a|b\nc", "b": ""},))
    assert text(listing, "markdown").splitlines()[-1] == r"| a\|b c |  |"
    assert rows(text(listing, "csv")) == [{"name": "a|b\nc", "b": ""}]


def test_a_cell_does_not_break_a_latex_table():
    listing = Listing(
        ({"a_b": r"half, 50 % of \{x}", "n": "1,024"}, {"a_b": "1 & 2\n<", "n": "x 2.5"})
    )
    assert text(listing, "latex").splitlines() == [
        r"\begin{tabular}{lr}",
        r"  \toprule",
        r"  a\_b & n \\",
        r"  \midrule",
        r"  half, 50 \% of \textbackslash{}\{x\} & 1,024 \\",
        r"  1 \& 2 \textless{} & x 2.5 \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]


def test_latex_has_titles_and_running_text():
    blocks = [Title("net_1", "28 %"), Table([{"a": "1"}], "by #"), Paragraph("N²", lead="so")]
    first, heading, _, last = latex([*blocks, Table([])]).split("\n\n")
    assert first == r"\paragraph{net\_1} 28 \%"
    assert heading == r"\noindent\textbf{by \#}"
    assert last == r"\textbf{so}: N$^2$"
    assert latex([Line("a → b")]) == r"\noindent a $\rightarrow$ b"


@pytest.mark.parametrize("kind", REPORTS)
def test_latex_has_nothing_that_pdflatex_does_not_know(kind):
    written = text(REPORTS[kind](), "latex")
    assert written.count(r"\begin{tabular}") == written.count(r"\end{tabular}")
    assert not {sign for sign in written if ord(sign) > 0x17F}


def test_an_empty_report_is_no_blank_line():
    none = Validation((ValidatedSpec(source="x", problems=(Problem("is bad"),)),))
    assert [text(none, format) for format in ("table", "markdown", "latex")] == ["", "", ""]
    [row] = rows(text(none, "csv"))
    assert (row["valid"], row["problems"]) == ("False", "is bad")


def test_a_terminal_gets_its_own_width_and_colors(run, command, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, out, _ = run(*command("flops"))
    assert "\x1b[1;32mlinear" in out
    assert max(len(line) for line in out.split("\x1b[1;32mlinear")[1].splitlines()) <= 62
    _, out, _ = run(*command("flops"), "--format", "markdown")
    assert "\x1b" not in out


# mixers


def by_name(listing):
    return {mixer["mixer"]: mixer for mixer in listing}


@pytest.mark.parametrize("format", FORMATS)
def test_mixers_lists_every_mixer_with_its_fields_cost_and_paper(run, format):
    status, out, err = run("mixers", "--format", format)
    assert (status, err) == (0, "")
    assert "Pydantic" not in out
    written = escaped if format == "latex" else str
    for name in registry.names("mixer"):
        mixer = registry.get("mixer", name)
        assert written(name) in out
        assert written(mixer.formula.split()[0]) in out
        assert written(mixer.paper.split(",")[0]) in out
        assert all(written(field) in out for field in mixer.model_fields.keys() - {"type"})


def test_the_json_of_mixers_has_each_field_as_data(run):
    _, out, _ = run("mixers", "--format", "json")
    listing = by_name(json.loads(out))
    assert list(listing) == registry.names("mixer")
    for name, mixer in listing.items():
        cls = registry.get("mixer", name)
        assert set(mixer) == {"mixer", "description", "fields", "one_of", "MACs", "paper"}
        assert set(mixer["one_of"]) == cls.one_of
        assert [field["name"] for field in mixer["fields"]] == [
            field for field in cls.model_fields if field != "type"
        ]
        for field in mixer["fields"]:
            assert set(field) == {"name", "type", "default", "required", "description"}
            assert field["description"]
            assert field["required"] is cls.model_fields[field["name"]].is_required()
    fields = {(name, field["name"]): field for name, m in listing.items() for field in m["fields"]}
    grid = fields["token_mlp", "grid"]
    assert (grid["required"], grid["default"]) == (True, None)
    assert grid["type"] == "integer, 1 to 256, or [height, width]"
    assert fields["token_mlp", "activation"]["default"] == "gelu"
    assert fields["separable_conv", "activation"]["default"] == "star_relu"
    assert fields["separable_conv", "bias"]["default"] is False
    assert fields["window_attention", "window_size"]["default"] == 7
    small_map = fields["window_attention", "small_map"]
    assert small_map["type"] == "pad, pad_shift, clamp, clamp_first or clamp_both"
    size = fields["window_attention", "window_size"]
    assert size["type"] == "integer, 1 to 64, or one per axis: [height, width]"
    assert listing["window_attention"]["one_of"] == ["head_dim", "num_heads"]
    assert listing["identity"]["fields"] == []


def test_a_mixer_with_the_listed_defaults_is_the_mixer_without_them(run):
    _, out, _ = run("mixers", "--format", "json")
    for mixer in json.loads(out):
        given = {f["name"]: 4 for f in mixer["fields"] if f["required"]}
        given |= dict.fromkeys(mixer["one_of"][:1], 8)
        listed = {
            f["name"]: f["default"]
            for f in mixer["fields"]
            if not f["required"] and f["name"] not in mixer["one_of"]
        }
        bare, full = (
            hierarch.load({"mixer": entry, "stages": [{"dim": 24, "depth": 1}]})
            for entry in [
                {"type": mixer["mixer"], **given},
                {"type": mixer["mixer"], **given, **listed},
            ]
        )
        assert bare == full


def test_the_table_says_what_is_required_and_what_is_the_default(run):
    _, out, _ = run("mixers", "--format", "markdown")
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in out.splitlines()}
    assert cells["token_mlp"] == "grid (required), hidden_dim=null, activation=gelu"
    assert cells["window_mlp"] == (
        "head_dim or num_heads (one is required), window_size=7, shift_size=0, small_map=pad"
    )
    assert cells["separable_conv"].endswith("bias=false, activation=star_relu")
    assert cells["identity"] == ""


def test_the_csv_of_mixers_has_a_record_for_each_field(run):
    _, out, _ = run("mixers", "--format", "csv")
    read = rows(out)
    data = mixer_listing().to_data()
    assert [(row["mixer"], row["field"]) for row in read] == [
        (mixer["mixer"], field["name"])
        for mixer in data
        for field in mixer["fields"] or [{"name": ""}]
    ]
    grid, hidden, activation = (row for row in read if row["mixer"] == "token_mlp")
    assert (grid["required"], grid["default"]) == ("true", "")
    assert (hidden["required"], hidden["default"]) == ("false", "null")
    assert activation["default"] == "gelu"
    assert all(left["mixer"] <= right["mixer"] for left, right in pairwise(read))


def test_another_packages_mixer_is_listed_too(run, monkeypatch):
    mixers = dict(registry._registered.get("mixer", {}))
    monkeypatch.setitem(registry._registered, "mixer", mixers)

    @hierarch.register
    class TwirlSpec(hierarch.MixerSpec):
        """Twirls
        tokens."""

        formula: ClassVar[str] = "NC"
        type: Literal["twirl"] = "twirl"
        turns: int
        """How
        often."""

        def macs(self, *, dim, grid):
            return 0

        def build(self, dim):
            raise NotImplementedError  # a listing builds nothing

    _, out, _ = run("mixers", "--format", "json")
    twirl = by_name(json.loads(out))["twirl"]
    assert twirl["description"] == "Twirls tokens."
    assert twirl["fields"] == [
        {
            "name": "turns",
            "type": "integer",
            "required": True,
            "default": None,
            "description": "How often.",
        }
    ]


# validate, swap


def test_validate_writes_problems_as_data_too(run, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("stages: []\n")
    status, out, err = run("validate", "swin_tiny", bad, "--format", "json")
    assert status == 2
    assert err.startswith(f"error: {bad}:1:9: stages: should have at least 1 entry")
    good, wrong = json.loads(out)
    expected = {"source": "swin_tiny", "valid": True, "name": "swin_tiny", "stages": 4}
    assert good == expected | {"blocks": 12, "problems": []}
    assert (wrong["source"], wrong["valid"], wrong["name"]) == (str(bad), False, None)
    [problem] = wrong["problems"]
    assert (problem["path"], problem["line"], problem["column"]) == ("stages", 1, 9)
    assert problem["message"].startswith("should have at least 1 entry")


def test_a_long_path_stays_in_one_line(run, tmp_path):
    file = tmp_path / ("x" * 200 + ".yaml")
    hierarch.dump(hierarch.load(tiny()), file)
    assert run("validate", file)[1] == f"{file}: ok, tiny, 3 stages, 7 blocks\n"


def test_swap_reports_fields_as_data_beside_a_file(run, tmp_path):
    new = tmp_path / "new.yaml"
    args = ["swap", "swin_tiny", "--mixer", "window_mlp", "--set=mixer.window_size=[8, 4]"]
    status, out, err = run(*args, "-o", new, "--format", "json")
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert data["name"] == "swin_tiny"
    assert data["layout_kept"] is True
    assert {f["field"]: (f["origin"], f["values"]) for f in data["fields"]} == {
        "window_size": ("given", [[8, 4]]),
        "head_dim": ("carried over", [32]),
        "shift_size": ("carried over", [0, 3]),
        "small_map": ("carried over", ["pad"]),
        "qkv_bias": ("dropped", [True]),
        "position_bias": ("dropped", ["relative"]),
        "shift_mask": ("dropped", [True]),
    }
    assert hierarch.load(new).mixer[0].window_size == (8, 4)
    assert run(*args, "-o", new, "--format", "table")[1].startswith("given: window_size=[8, 4]\n")


def test_swap_without_a_file_has_no_room_for_a_report(run):
    status, out, err = run("swap", "swin_tiny", "--mixer", "pooling", "--format", "json")
    assert (status, out) == (2, "")
    assert err == "error: --format needs --output FILE: without it, stdout is the new YAML\n"


def test_reports_are_written_without_torch():
    names = {name for name in sys.modules if name.startswith("hierarch.report")}
    assert {"hierarch.report.formats", "hierarch.report.mixers"} <= names
