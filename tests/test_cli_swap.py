"""`hierarch swap`: new YAML that keeps its source's comments and order, written whole or not."""

import json
import re

import pytest

import hierarch
from hierarch.spec.registry import get, names
from hierarch.swapping import explain

COMMENTED = """\
# a network of ours
name: ours   # for the paper

stages:
  # fine
  - {dim: 16, depth: 2}

  - dim: 32      # coarse
    depth: 4
    mixer:
      - type: window_attention   # regular
        num_heads: 4
        window_size: [4, 5]
      - {type: window_attention, num_heads: 4, window_size: [4, 5], shift_size: 2}
# how tokens mix
mixer: {head_dim: 8, window_size: 7, type: window_attention, qkv_bias: false}  # heads first
mlp_ratio: 4.0
"""


@pytest.fixture
def ours(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(COMMENTED)
    return path


def test_the_example_of_the_help_text(run):
    status, out, err = run(
        *("swap", "swin_tiny", "--mixer", "window_mlp"),
        *("--stages", "2,3", "--set", "mixer.window_size=8"),
    )
    assert status == 0
    source = (hierarch.spec.load.find("swin_tiny")).read_text().splitlines()
    changed = [line for line in out.splitlines() if line not in source]
    cycle = (
        "mixer: [{type: window_mlp, head_dim: 32, window_size: 8}, "
        "{type: window_mlp, head_dim: 32, window_size: 8, shift_size: 3}]"
    )
    assert changed == [
        f"  - {{dim: {dim}, depth: {n}, {cycle}}}" for dim, n in [(384, 6), (768, 2)]
    ]
    assert len(out.splitlines()) == len(source)
    assert err.splitlines() == [
        "given: window_size=8",
        "carried over: head_dim=32, shift_size=0 / 3, small_map=pad",
        "dropped: qkv_bias, position_bias, shift_mask",
    ]


def test_comments_order_and_blank_lines_are_kept(run, ours):
    status, out, _ = run("swap", ours, "--mixer", "window_mlp")
    assert status == 0
    expected = COMMENTED.replace("type: window_attention", "type: window_mlp")
    expected = expected.replace(", qkv_bias: false", "")
    # a comment keeps its column
    assert re.sub(" +#", " #", out) == re.sub(" +#", " #", expected)


def test_a_cycle_that_becomes_one_entry_keeps_the_lines_around_it(run, ours):
    _, out, err = run("swap", ours, "--mixer", "pooling", "--stages", "1")
    assert hierarch.loads(out).stages[1].mixer[0].type == "pooling"
    assert len(hierarch.loads(out).stages[1].mixer) == 1
    kept = [line for line in COMMENTED.splitlines() if "#" in line or not line]
    assert [line for line in out.splitlines() if line in kept and "window_att" not in line] == [
        line for line in kept if "regular" not in line and "heads first" not in line
    ]
    assert "one entry for a cycle of: 2" in err


@pytest.mark.parametrize(("turn", "mixer"), [*enumerate(names("mixer"))])
def test_the_written_yaml_equals_the_functions_result(run, ours, turn, mixer):
    fields = {"grid": 6} if "grid" in get("mixer", mixer).model_fields else {}
    places = [None, "1", "0,1"]  # each of them in each source in turn
    for i, source in enumerate([ours, "swin_tiny", "ablations/swin_tiny_pooling"]):
        stages = places[(turn + i) % len(places)]
        chosen = stages and [int(stage) for stage in stages.split(",")]
        option = [f"--stages={stages}"] if stages else []
        option += [f"--set=mixer.{name}={value}" for name, value in fields.items()]
        status, out, err = run("swap", source, "--mixer", mixer, *option)
        assert status == 0
        assert hierarch.loads(out) == hierarch.swap(source, {"type": mixer, **fields}, chosen)
        assert "could not be kept" not in err


def test_an_anchor_that_stages_share_is_written_out(run, tmp_path):
    shared = tmp_path / "shared.yaml"
    stage = "{dim: 16, depth: 1, mixer: "
    shared.write_text(f"stages:\n  - {stage}&m {{type: pooling}}}}\n  - {stage}*m}}\n")
    status, out, err = run("swap", shared, "--mixer", "identity", "--stages", "1")
    assert status == 0
    assert [s.mixer[0].type for s in hierarch.loads(out).stages] == ["pooling", "identity"]
    assert err.startswith("the source's layout and comments could not be kept\n")


def test_other_values_are_set_in_the_spec_first(run, ours):
    values = ["--set=stages.0.dim=24", "--set=mixer.num_heads=2", "--set=drop_rate=0.5"]
    status, out, _ = run("swap", ours, "--mixer", "global_attention", *values)
    assert status == 0
    spec = hierarch.loads(out)
    assert (spec.stages[0].dim, spec.drop_rate) == (24, 0.5)
    assert (spec.mixer[0].num_heads, spec.mixer[0].head_dim) == (2, None)
    assert "# coarse" in out


def test_output_goes_to_a_file_alone(run, ours, tmp_path):
    written = tmp_path / "new.yaml"
    status, out, err = run("swap", ours, "--mixer", "pooling", "-o", written)
    assert (status, out) == (0, "")
    assert "at its default: kernel_size=3" in err
    assert hierarch.load(written) == hierarch.swap(ours, "pooling")
    assert ours.read_text() == COMMENTED


def test_a_file_can_be_swapped_in_place(run, ours):
    assert run("swap", ours, "--mixer", "window_mlp", "--output", ours)[0] == 0
    assert "# for the paper" in ours.read_text()
    assert hierarch.load(ours).mixer[0].type == "window_mlp"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--mixer", "window_mpl"], "unknown mixer 'window_mpl', did you mean 'window_mlp'?"),
        (["--mixer", ""], "unknown mixer '', known: axial_shift, channel_attention"),
        (["--mixer", "pooling", "--stages", "2"], "stages [2]: ours has stages 0 to 1"),
        (["--mixer", "pooling", "--stages", "-1"], "stages [-1]: ours has stages 0 to 1"),
        (["--mixer", "pooling", "--stages", ""], "--stages '': write it as 2,3"),
        (["--mixer", "pooling", "--stages", "1,,2"], "--stages '1,,2': write it as 2,3"),
        (["--mixer", "pooling", "--stages", "9" * 5_000], ": write it as 2,3"),
        (
            ["--mixer", "pooling", "--set", "mixer.kernel=5"],
            "kernel: unknown key 'kernel', did you",
        ),
        (
            ["--mixer", "pooling", "--set", "mixer.kernel_size=4"],
            "kernel_size: should be odd, got",
        ),
        (["--mixer", "window_mlp", "--set", "mixer.head_dim=5"], "not divisible by head_dim=5"),
        (["--mixer", "pooling", "--set", "depth=5"], "depth: unknown key 'depth', known: "),
    ],
)
def test_an_invalid_swap_writes_nothing(run, ours, tmp_path, args, expected):
    old = tmp_path / "old.yaml"
    old.write_text("what was here\n")
    status, out, err = run("swap", ours, *args, "-o", old)
    assert (status, out) == (2, "")
    assert expected in err
    assert old.read_text() == "what was here\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.yaml", "ours.yaml"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("", "Is a directory"),
        ("missing/new.yaml", "No such file or directory"),
        ("ours.yaml/new.yaml", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_an_output_that_cannot_be_written_is_the_users_mistake(run, ours, tmp_path, target, why):
    status, out, err = run("swap", ours, "--mixer", "pooling", "-o", tmp_path / target)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == f"error: {tmp_path / target}: cannot be written: {why}"
    assert [path.name for path in tmp_path.iterdir()] == ["ours.yaml"]


# budgets


def test_a_budget_changes_numbers_alone_and_says_how_close_it_came(run, ours):
    status, out, err = run(
        *("swap", ours, "--mixer", "separable_conv", "--match", "macs", "--at", "96x64")
    )
    assert status == 0
    spec = hierarch.loads(out)
    assert spec == hierarch.swap(ours, "separable_conv", match="macs", at=(96, 64))
    before, after = (
        hierarch.measure(one, [(96, 64)]).sizes[0].macs for one in (hierarch.load(ours), spec)
    )
    assert f"budget: {before:,} MACs at 96x64; now {after:,} (" in err
    assert [line for line in COMMENTED.splitlines() if line.startswith("#")] == [
        line for line in out.splitlines() if line.startswith("#")
    ]
    for comment in ("# for the paper", "  # fine", "# coarse", "# heads first"):
        assert comment in out
    assert "could not be kept" not in err
    moved = {f"{stage.dim}" for stage in spec.stages} - {"16", "32"}
    assert moved
    assert all(f"→ {dim} in stage" in err for dim in moved)


@pytest.mark.parametrize("move", ["widths", "depths", "ratio", "depths,ratio", "ratio, widths"])
@pytest.mark.parametrize("stages", [None, "1"])
def test_the_yaml_of_a_budget_says_what_the_function_does(run, ours, move, stages):
    option = [f"--stages={stages}"] if stages else []
    args = ("swap", ours, "--mixer", "pooling", "--match", "params", "--move", move, *option)
    status, out, err = run(*args)
    assert (status, run(*args)) == (0, (0, out, err))
    kinds = [kind.strip() for kind in move.split(",")]
    expected = explain(ours, "pooling", stages and [1], match="params", move=kinds)
    assert hierarch.loads(out) == expected.spec
    assert "could not be kept" not in err
    assert "# coarse" in out
    assert err.splitlines()[-len(expected.match.notes) :] == list(expected.match.notes)


def test_a_budget_is_reported_as_data(run, tmp_path):
    new = tmp_path / "new.yaml"
    args = ["swap", "swin_tiny", "--mixer", "pooling", "--match=params", "-o", new]
    budget = json.loads(run(*args, "--format", "json")[1])["budget"]
    assert (budget["of"], budget["size"], budget["target"]) == ("params", None, 28_288_354)
    assert budget["off"] == budget["reached"] / budget["target"] - 1
    dims = {move["stage"]: move["new"] for move in budget["moved"]}
    assert dims == {i: stage.dim for i, stage in enumerate(hierarch.load(new).stages)}
    records = run(*args, "--format", "csv")[1]
    assert f"stages.0.dim,moved,{dims[0]}" in records


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--match", "flops"], "Invalid value for '--match'"),
        (["--match", "macs", "--at", "224,448"], "--at '224,448': takes one size"),
        (["--match", "macs", "--at", "big"], "--at 'big': write it as 224 or 896x1120"),
        (["--match", "macs", "--at", "0"], "size (0, 0): a side should be an integer"),
        (["--match", "params", "--at", "224"], "parameters do not depend on the image's size"),
        (["--match", "macs", "--move", "heads"], "what may move are widths, depths, ratio"),
        (["--at", "224"], "are for a budget: give match, too"),
    ],
)
def test_a_budget_that_is_none_is_the_users_mistake(run, ours, args, expected):
    status, out, err = run("swap", ours, "--mixer", "pooling", *args)
    assert (status, out) == (2, "")
    assert expected in err
