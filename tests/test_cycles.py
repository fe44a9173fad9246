"""Blocks, norms and channel mixers that alternate within a stage, as mixers do."""

import pytest
import torch
from helpers import perturb
from torch import nn

import hierarch
from hierarch.blocks.post_norm import PostNorm
from hierarch.blocks.pre_norm import PreNorm
from hierarch.blocks.single_residual import SingleResidual
from hierarch.errors import SpecError
from hierarch.nn.layers import LayerScale
from hierarch.norms.affine import Affine
from hierarch.plots.kinds.architecture import different
from hierarch.spec.difference import difference
from hierarch.spec.params import params
from hierarch.swapping import explain

MIXERS = ["pooling", {"type": "window_attention", "head_dim": 8, "window_size": 4}]
STAGES = [{"dim": 16, "depth": 5}, {"dim": 32, "depth": 2}]
CYCLES = {
    "block": ["pre_norm", "post_norm", "single_residual"],
    "norm": ["layer_norm", {"type": "affine"}],
    "channel_mixer": ["mlp", "none"],
}


def spec(**fields):
    return hierarch.load({"mixer": MIXERS, "stages": STAGES} | fields)


def test_block_i_takes_entry_i_of_each_cycle():
    blocks = spec(**CYCLES).plan()[0].blocks
    found = [(b.mixer.type, b.spec.type, b.norm.type, b.channel_mixer.type) for b in blocks]
    assert found == [
        ("pooling", "pre_norm", "layer_norm", "mlp"),
        ("window_attention", "post_norm", "affine", "none"),
        ("pooling", "single_residual", "layer_norm", "mlp"),
        ("window_attention", "pre_norm", "affine", "none"),
        ("pooling", "post_norm", "layer_norm", "mlp"),
    ]


def test_modules_are_those_of_the_cycle():
    first = hierarch.build(spec(**CYCLES)).stages[0].blocks
    assert [type(block) for block in first[:3]] == [PreNorm, PostNorm, SingleResidual]
    assert isinstance(first[0].norm2, nn.LayerNorm)
    assert isinstance(first[1].norm1, Affine)
    assert [block.mlp is None for block in first] == [False, True, False, True, False]


def test_a_stage_has_a_cycle_of_its_own():
    plan = spec(norm=CYCLES["norm"], stages=[STAGES[0], STAGES[1] | {"norm": "none"}]).plan()
    assert [block.norm.type for block in plan[0].blocks[:2]] == ["layer_norm", "affine"]
    assert {block.norm.type for block in plan[1].blocks} == {"none"}


def test_a_list_of_one_is_a_part():
    assert spec(norm=["affine"]) == spec(norm="affine")
    assert spec(norm=["affine"]).to_data()["norm"] == "affine"


def test_cycles_are_written_as_they_are_read():
    cycled = spec(**CYCLES)
    assert hierarch.loads(hierarch.dump(cycled)) == cycled
    assert cycled.to_data()["channel_mixer"] == ["mlp", "none"]


@pytest.mark.parametrize("size", [64, 97])
@pytest.mark.parametrize("head", [None, {"num_classes": 3}])
def test_claims_are_counts(size, head):
    cycled = spec(**CYCLES, head=head, layer_scale=0.1)
    report = hierarch.measure(cycled, sizes=[size])
    [cost] = report.sizes
    assert (cost.macs, report.params) == (cost.claimed_macs, params(cycled))
    for stage in cost.stages:
        assert stage.parts == stage.claimed_parts


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": ["layer_norm", "afine"]}, r"norm\[1\].*did you mean 'affine'"),
        ({"norm": ["affine", {"type": "layer_norm", "eps": 2.0}]}, r"norm\[1\]\.eps"),
        ({"norm": []}, "norm: .*at least 1"),
        ({"block": [3]}, r"block\[0\]: should be the name of a block"),
        ({"stages": [STAGES[0] | {"channel_mixer": ["mlp", "mpl"]}]}, r"channel_mixer\[1\]"),
    ],
)
def test_a_mistake_in_a_cycle_is_told_with_its_entry(fields, message):
    with pytest.raises(SpecError, match=message):
        spec(**fields)


def test_the_norm_of_a_map_and_of_a_head_is_the_first_of_a_cycle():
    maps = hierarch.build(spec(norm=["affine", "layer_norm"]))
    assert [isinstance(stage.norm, Affine) for stage in maps.stages] == [True, True]
    headed = hierarch.build(spec(norm=["affine", "layer_norm"], head={"num_classes": 3}))
    assert isinstance(headed.norm, Affine)


def test_every_entry_is_checked():
    tokens = {"extra_tokens": {"class_token": True}, "mixer": "identity", "stages": [STAGES[0]]}
    with pytest.raises(SpecError, match="these do: conv_mlp, batch_norm"):
        spec(**tokens, channel_mixer=["mlp", "conv_mlp"], norm=["affine", "batch_norm"])


def test_a_swap_replaces_every_entry():
    swapped = explain(spec(**CYCLES), {"type": "layer_norm", "eps": 0.5, "bias": True}, part="norm")
    assert swapped.spec.norm == spec(norm={"type": "layer_norm", "eps": 0.5}).norm
    assert swapped.joined == 2
    one = hierarch.swap(spec(**CYCLES), "glu", [1], part="channel_mixer")
    assert one.stages[1].channel_mixer.type == "glu"
    assert one.channel_mixer == spec(**CYCLES).channel_mixer


def test_a_difference_shows_both_cycles():
    told = difference(spec(), spec(norm=["layer_norm", "affine"]))
    assert told == ("all stages: norm layer_norm → [layer_norm, affine]",)


def test_a_budget_keeps_whole_cycles():
    deep = spec(stages=[{"dim": 16, "depth": 6}, {"dim": 32, "depth": 6}], **CYCLES)
    found = explain(deep, "depthwise_conv", match="params", move=["depths"]).spec
    assert {stage.depth % 6 for stage in found.stages} == {0}
    assert {block.spec.type for block in found.plan()[0].blocks} == {*CYCLES["block"]}


def test_a_drawing_has_a_letter_for_each_kind_of_block():
    kinds = different(spec(channel_mixer=["mlp", "mlp", "none"]))
    assert [inside.letter for inside in kinds.values()] == ["a", "b", "c"]


def test_names_without_weight_decay_and_gradients():
    model = perturb(hierarch.build(spec(**CYCLES, layer_scale=0.1)).double())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    sum(out.square().sum() for out in model(images)).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    tables = {f"stages.0.blocks.{i}.mixer.relative_position_bias_table" for i in (1, 3)}
    assert tables <= model.no_weight_decay()
    assert sum(isinstance(m, LayerScale) for m in model.stages[0].modules()) == 2 + 1 + 1 + 1 + 2
