"""The command line: only results on stdout, exit status 0, 1 or 2, and no traceback."""

import csv
import functools
import io
import json
import math

import pytest
from helpers import tiny

import hierarch

FORMATS = ("table", "json", "csv", "markdown")
SIZES = ("--sizes", "32,40x48")


@pytest.fixture
def file(tmp_path):
    """A small network's YAML file."""
    path = tmp_path / "tiny.yaml"
    hierarch.dump(hierarch.load(tiny(head={"num_classes": 10})), path)
    return path


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@functools.cache
def measured():
    return hierarch.measure(tiny(head={"num_classes": 10}), sizes=[32, (40, 48)])


# flops


@pytest.mark.parametrize("by", ["stage", "part", "operator", "module"])
@pytest.mark.parametrize("format", FORMATS)
def test_flops_writes_every_breakdown_in_every_format(run, file, by, format):
    status, out, err = run("flops", file, *SIZES, "--by", by, "--format", format)
    assert (status, err) == (0, "")
    report = measured()
    if format == "json":
        assert json.loads(out)["reports"] == [report.to_dict(by=by)]
    elif format == "csv":
        totals = [int(row["macs"]) for row in rows(out) if row[by] == "total"]
        assert totals == [size.macs for size in report.sizes]
    else:
        assert "linear: the claimed cost per token stays bounded" in out.replace("**", "")
        assert "40x48" in out
        assert f"{report.sizes[1].macs / 1e9:.3f}" in out
        assert format == "table" or "| --- |" in out


def test_the_json_of_flops_has_these_keys(run, file):
    status, out, err = run("flops", file, "swin_tiny", "--sizes", "56,60x52", "--format", "json")
    assert (status, err) == (0, "")
    written = json.loads(out)
    assert set(written) == {"schema_version", "reports"}
    assert written["schema_version"] == 1
    for report, source in zip(written["reports"], [file, "swin_tiny"], strict=True):
        spec = hierarch.load(source)
        assert set(report) == {"name", "params", "sizes", "fit", "verdict", "why"}
        assert report["name"] == spec.name
        assert set(report["fit"]) == {"exponent", "r2"}
        assert report["verdict"] == "linear"
        assert type(report["params"]) is int
        assert [size["size"] for size in report["sizes"]] == [[56, 56], [60, 52]]
        for size in report["sizes"]:
            check_size(size, spec)


def check_size(size, spec):
    costs = {"macs", "claimed_macs", "activations", "padding_macs", "stem", "head"}
    assert set(size) == {*costs, "size", "stages"}
    assert all(type(size[key]) is int for key in costs)
    stages = size["stages"]
    assert [stage["index"] for stage in stages] == list(range(len(spec.stages)))
    for stage, written in zip(stages, spec.stages, strict=True):
        keys = {"index", "dim", "depth", "grid", "macs", "claimed_macs", "macs_per_token", "parts"}
        assert set(stage) == keys
        assert (stage["dim"], stage["depth"]) == (written.dim, written.depth)
        assert type(stage["macs"]) is type(stage["claimed_macs"]) is int
        assert stage["macs_per_token"] == stage["macs"] / math.prod(stage["grid"])
        assert set(stage["parts"]) == {"downsampling", "position", "norm", "mixer", "mlp"}
        assert sum(stage["parts"].values()) == stage["macs"] == stage["claimed_macs"]
    assert sum(stage["macs"] for stage in stages) + size["stem"] + size["head"] == size["macs"]
    assert size["macs"] == size["claimed_macs"]


def test_several_networks_are_compared(run, file, tmp_path):
    other = tmp_path / "other.yaml"
    hierarch.dump(hierarch.load(tiny("window_mlp", name="other")), other)
    status, out, err = run("flops", file, other, *SIZES)
    assert (status, err) == (0, "")
    comparison = out[out.rindex("name ") :]
    assert comparison.count("tiny") == comparison.count("other") == 2
    _, out, _ = run("flops", file, other, *SIZES, "--format", "csv")
    assert {row["name"] for row in rows(out)} == {"tiny", "other"}


def test_networks_with_the_same_name_are_shown_with_their_source(run, file):
    _, out, _ = run("flops", file, file, *SIZES, "--format", "json")
    assert {report["name"] for report in json.loads(out)["reports"]} == {f"tiny ({file})"}


def test_sizes_grow_from_the_smallest_that_needs_no_padding(run, file):
    _, out, _ = run("flops", file, "--format", "json")
    [report] = json.loads(out)["reports"]
    assert [size["size"][0] for size in report["sizes"]] == [64, 128, 256, 512]
    assert not any(size["padding_macs"] for size in report["sizes"])
    assert report["fit"]["exponent"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "sizes",
    [
        *("", "0", "-1", "large", "224x", "x224", "1x2x3", "224,,448", "224;448", "1e3", "2.5"),
        *("nan", "65537", "9" * 9, "9" * 5_000, "２２４", "0x10"),
    ],
)
def test_bad_sizes_are_refused(run, file, sizes):
    status, out, err = run("flops", file, f"--sizes={sizes}")
    assert (status, out) == (2, "")
    assert err.startswith(("error: --sizes", "error: size"))
    assert "write it as 224 or 896x1120" in err or "an integer from 1 to 65536" in err
    assert len(err) < 300


def test_assert_linear_is_an_exit_status_with_the_reason(run, file):
    linear = run("flops", file, *SIZES, "--assert-linear")
    assert (linear[0], linear[2]) == (0, "")
    mixer = "mixer={type: global_attention, num_heads: 2}"
    status, out, err = run("flops", file, *SIZES, "--assert-linear", "--set", mixer)
    assert status == 1
    assert "superlinear" in out
    assert err.startswith("tiny is superlinear: the cost per token grows with the image: global_")
    assert "4NC² + 2N²C" in err
    assert run("flops", file, *SIZES, "--set", mixer)[0] == 0


# show, validate, mixers, schema


@pytest.mark.parametrize("format", FORMATS)
def test_show_prints_the_architecture(run, format):
    status, out, err = run("show", "swin_tiny", "--format", format)
    assert (status, err) == (0, "")
    assert all(cell in out for cell in ("stage 3", "768", "window_attention", "head_dim=32"))
    parts = ["stem", "stage 0", "stage 1", "stage 2", "stage 3", "head", "total"]
    if format == "json":
        read = json.loads(out)
        assert [row["part"] for row in read] == parts
        assert (read[4]["grid"], read[4]["stride"], read[4]["depth"]) == ([7, 7], 32, 2)
        assert len(read[3]["mixers"]) == read[3]["depth"] == 6
        assert read[0]["grid"] is None
    elif format == "csv":
        read = rows(out)
        assert [row["part"] for row in read] == parts
        assert (read[4]["grid"], read[4]["stride"], read[4]["depth"]) == ("7x7", "32", "2")
    else:
        assert all(cell in out for cell in ("7x7", "28,288,354", "4.509"))
        return
    assert [int(read[-1]["parameters"]), int(read[-1]["macs"])] == [28_288_354, 4_509_194_496]
    assert sum(int(row["macs"]) for row in read[:-1]) == int(read[-1]["macs"])


def test_show_prints_a_part_as_yaml_and_omits_it_at_its_default(run):
    mixer = "mixer={type: separable_conv, activation: relu, bias: true}"
    _, out, _ = run("show", "swin_tiny", "--set", mixer, "--format", "json")
    expected = "separable_conv kernel_size=7 expand_ratio=2 bias=true activation=relu"
    assert json.loads(out)[1]["mixers"] == [expected] * 2
    _, out, _ = run("show", "swin_tiny", "--set", "mixer=separable_conv")
    assert "activation" not in out


def test_show_takes_one_size(run, file):
    _, out, _ = run("show", file, "--size", "64x96", "--format", "json")
    assert [row["grid"] for row in json.loads(out)] == [
        *(None, [16, 24], [8, 12], [4, 6], None, None)
    ]
    for bad in ("32,64", "", "big"):
        assert run("show", file, "--size", bad)[:2] == (2, "")


def test_validate_names_every_file_that_is_wrong(run, file, tmp_path):
    status, out, err = run("validate", file, "swin_tiny")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{file}: ok, tiny, 3 stages, 7 blocks",
        "swin_tiny: ok, swin_tiny, 4 stages, 12 blocks",
    ]
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("stages: []\n")
    status, out, err = run("validate", first, file, second)
    assert status == 2
    assert out.startswith(f"{file}: ok")
    missing, empty = sorted(err.splitlines(), key=lambda line: "first" in line)
    assert empty.startswith(f"error: {first}:1:9: stages: should have at least 1 entry")
    assert missing == f"error: {second}: no such file"


def test_schema_writes_the_json_schema(run):
    status, out, err = run("schema")
    assert (status, err) == (0, "")
    assert json.loads(out) == hierarch.schema()


# --set


@pytest.mark.parametrize("command", ["flops", "show", "validate", "swap"])
def test_every_command_that_reads_a_spec_sets_values_in_it(run, file, command):
    extra = {"flops": SIZES, "swap": ("--mixer", "window_mlp")}.get(command, ())
    values = ["--set", "name=renamed", "--set", "stages.1.depth=5", "--set", "mlp_ratio=1"]
    status, out, _ = run(command, file, *extra, *values)
    assert status == 0
    shown = {"validate": "renamed, 3 stages, 9 blocks", "swap": "depth: 5"}
    assert shown.get(command, " 5 ") in out
    status, out, err = run(command, file, *extra, "--set", "stages.1.depth=deep")
    assert (status, out) == (2, "")
    assert "stages[1].depth: should be a valid integer, got 'deep'" in err


def test_a_value_is_set_in_each_entry_of_a_list_and_where_none_was(run, file):
    sets = ["mixer.window_size=6", "mixer.1.shift_size=[1, 2]", "stem.patch_size=2"]
    _, out, _ = run("swap", file, "--mixer=window_mlp", *(f"--set={text}" for text in sets))
    spec = hierarch.loads(out)
    assert [(m.window_size, m.shift_size) for m in spec.mixer] == [(6, 0), (6, (1, 2))]
    assert "\nstem: {type: patch_embed, patch_size: 2}\n" in out
    sets = ["--set=norm.eps=0.001", "--set=mixer.window_size=6", "--set=stages.2.mixer=pooling"]
    _, out, _ = run("show", file, *sets, "--format", "json")
    mixers = [set(row["mixers"]) for row in json.loads(out)[1:4]]
    assert [sum("window_size=6" in mixer for mixer in stage) for stage in mixers] == [2, 2, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("depth", "--set depth: write it as path.to.field=value"),
        ("=1", "--set =1: write it as path.to.field=value"),
        ("a..b=1", "--set a..b=1: write it as path.to.field=value"),
        ("a" + ".a" * 5_000 + "=1", "write it as path.to.field=value"),
        ("stem.patch_size=4,4", "--set stem.patch_size: takes one value; write a list as [4,4]"),
        ("stages.9.dim=8", "--set stages.9.dim: there is no entry 9, the list has 3"),
        (f"stages.{'9' * 5_000}.dim=8", "there is no entry 999999999, the list has 3"),
        ("mlp_ratio.x=1", "--set mlp_ratio.x: 2.0 is a plain value, without a 'x'"),
        ("name=[", "--set name:1:"),
        ("name=!!python/name:os.system x", "--set name:1:2: [0]: the tag !!python/name:os.system"),
        ("dorp_rate=0.1", "dorp_rate: unknown key 'dorp_rate', did you mean 'drop_rate'?"),
        ("stages.0.dim=9", "stages[0].dim: dim=9 is not divisible by head_dim=4"),
        ("drop_rate=", "drop_rate: should be a valid number, got None"),
    ],
)
def test_a_bad_assignment_is_refused(run, file, text, expected):
    status, out, err = run("validate", file, "--set", text)
    assert (status, out) == (2, "")
    assert expected in err
    assert len(err) < 800
