"""`hierarch compare`: one table, each number with its difference, and the specs' in words."""

import csv
import io
import json

import pytest
from helpers import tiny, without_mask
from hypothesis import HealthCheck, given, settings
from strategies import backbone_specs

import hierarch
from hierarch import SpecError
from hierarch.spec.difference import difference


def differ(one, other):
    return difference(hierarch.load(one), hierarch.load(other))


# in words


@settings(deadline=None)
@given(backbone_specs())
def test_a_spec_does_not_differ_from_itself_however_it_is_written(spec):
    assert difference(spec, spec) == ()
    assert difference(spec, hierarch.loads(hierarch.dump(spec))) == ()


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(backbone_specs(), backbone_specs())
def test_two_specs_that_differ_say_so(one, other):
    # a name says nothing, nor does a cycle that its stage is too shallow to see, or says twice
    if one.plan() != other.plan() or one.stem != other.stem or one.head != other.head:
        assert difference(one, other)
        assert difference(other, one)


def test_what_stages_have_in_common_is_said_once():
    swapped = hierarch.swap("swin_tiny", "window_mlp", [2, 3], match="macs")
    dims = [stage.dim for stage in swapped.stages]
    assert differ("swin_tiny", swapped) == (
        "stages 2 and 3: window_mlp for window_attention",
        f"stage 2: dim 384 → {dims[2]}",
        f"stage 3: dim 768 → {dims[3]}",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mlp_ratio": 3}, ("all stages: mlp_ratio 2 → 3",)),
        ({"norm": "group_norm"}, ("all stages: norm layer_norm → group_norm",)),
        ({"head": {"num_classes": 5}}, ("head none → {num_classes: 5}",)),
        ({"downsample": "conv_downsample"}, ("stages 1 and 2: downsample patch_merging → conv",)),
        ({"stages": [{"dim": 8, "depth": 2}]}, ("3 → 1 stages",)),
        ({"name": "other"}, ()),
        (
            {"mixer": {"type": "window_attention", "head_dim": 4, "window_size": 8}},
            ("all stages: window_size 4 → 8; shift_size 0 / 2 → 0",),
        ),
        (
            {"mixer": without_mask(tiny()).to_data()["mixer"]},
            ("all stages: shift_mask true → false",),
        ),
        ({"mixer": ["pooling", "identity"]}, ("all stages: pooling / identity for window_att",)),
    ],
)
def test_each_change_has_its_words(change, words):
    found = differ(tiny(), tiny() | change)
    assert len(found) == len(words)
    assert all(line.startswith(start) for line, start in zip(found, words, strict=True))


def test_the_order_of_a_cycle_is_a_difference():
    regular, shifted = hierarch.load(tiny()).mixer
    cycles = ([regular, shifted], [shifted, regular], [regular, regular, shifted])
    one, turned, longer = (tiny() | {"mixer": cycle} for cycle in cycles)
    assert differ(one, tiny() | {"mixer": [regular, shifted] * 2}) == ()
    assert differ(one, longer)[0].startswith("all stages: mixer [{type: window_attention, head_dim")
    assert differ(one, turned)


# numbers


def test_each_number_stands_beside_its_difference():
    found = hierarch.compare([tiny(), tiny(mlp_ratio=4)], sizes=[32, (48, 64)])
    first, second = found.to_data()["networks"]
    assert (first["difference"], second["difference"]) == ([], ["all stages: mlp_ratio 2 → 4"])
    for one, other in zip(first["sizes"], second["sizes"], strict=True):
        assert one["macs_off"] == one["params_off"] == 0
        assert other["macs_off"] == other["macs"] / one["macs"] - 1 > 0
        assert other["images_per_second"] is None
    report = hierarch.measure(tiny(), sizes=[32]).sizes[0]
    assert first["sizes"][0]["macs"] == report.macs
    tokens = 8 * 8
    assert first["sizes"][0]["macs_per_token"] == (report.macs - report.head) / tokens
    rows = found.rows()
    assert [row["image"] for row in rows] == ["32x32", "48x64"] * 2
    assert [("(" in row["GMACs"]) for row in rows] == [False, False, True, True]


def test_two_specs_of_one_name_are_numbered():
    found = hierarch.compare([tiny(), tiny()], sizes=[32])
    assert [one.report.name for one in found.networks] == ["tiny #1", "tiny #2"]
    assert "the same" in found.markdown()


def test_sizes_are_the_first_specs_and_twice_that():
    found = hierarch.compare([tiny(input_size=40), tiny(input_size=224)])
    assert [size.size for size in found.networks[1].report.sizes] == [(40, 40), (80, 80)]
    huge = hierarch.compare([tiny(input_size=65_536), tiny()])
    assert len(huge.networks[0].report.sizes) == 1


def test_with_bench_throughput_and_memory_are_compared_too(run, tmp_path):
    for name in ("one", "two"):
        hierarch.dump(hierarch.load(tiny(name=name)), tmp_path / f"{name}.yaml")
    files = (tmp_path / "one.yaml", tmp_path / "two.yaml")
    args = ("--bench", "--rounds=1", "--sizes=32", "--format=json")
    status, out, err = run("compare", *files, *args)
    assert (status, err) == (0, "")
    data = json.loads(out)
    for network in data["networks"]:
        [size] = network["sizes"]
        assert size["images_per_second"] > 0
        assert size["memory_bytes"] > 0
    assert data["networks"][0]["sizes"][0]["images_per_second_off"] == 0
    assert data["bench"]["rounds"] == 1


# the command


def test_the_command_writes_the_table(run):
    args = ("compare", "swin_tiny", "ablations/swin_tiny_pooling", "--sizes", "224")
    status, out, err = run(*args)
    assert (status, err) == (0, "")
    assert "19,621,192 (-30.6%)" in out
    assert "swin_tiny_pooling: all stages: pooling for window_attention" in out
    read = list(csv.DictReader(io.StringIO(run(*args, "--format", "csv")[1])))
    assert [row["name"] for row in read] == ["swin_tiny", "swin_tiny_pooling"]
    assert float(read[1]["params_off"]) == pytest.approx(19_621_192 / 28_288_354 - 1)
    latex = run(*args, "--format", "latex")[1]
    assert r"swin\_tiny\_pooling & 224x224 & 19,621,192 (-30.6\%)" in latex
    assert latex.startswith("\\begin{tabular}{lrrrrrl}\n  \\toprule\n")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["swin_tiny"], "error: 1 specs: give two or more, the first to compare with"),
        (["swin_tiny", "swin_tinny"], "no such file or preset: 'swin_tinny', did you mean"),
        (["swin_tiny", "swin_small", "--sizes", "0"], "size (0, 0): a side should be an integer"),
        (["swin_tiny", "swin_small", "--sizes", "big"], "--sizes 'big': write it as 224"),
        (["swin_tiny", "swin_small", "--bench", "--rounds", "0"], "rounds 0: should be"),
    ],
)
def test_a_comparison_that_is_none_is_the_users_mistake(run, args, expected):
    status, out, err = run("compare", *args)
    assert (status, out) == (2, "")
    assert expected in err


def test_no_size_is_an_error():
    with pytest.raises(SpecError, match="no image size to compare at"):
        hierarch.compare([tiny(), tiny()], sizes=[])
