"""Mixer and channel mixer side by side: timm's ParallelScalingBlock, and the ways that it runs."""

import pytest
import torch
from helpers import noise, perturb, tiny
from oracles import relative
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer

import hierarch
from hierarch import engine, plots
from hierarch.errors import PeerError
from hierarch.plots.blocks import steps
from hierarch.spec.params import params

EXACT = 1e-12
VITS = {
    "as published": {"init_values": 0.1, "reg_tokens": 2, "no_embed_class": True},
    "without a bias of queries, keys and values": {"qkv_bias": False},
    "averaged": {"class_token": False, "global_pool": "avg", "mlp_ratio": 3.0},
}


def timms(**fields):
    shape = {"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 5}
    options = {"block_fn": ParallelScalingBlock, "dynamic_img_size": True}
    return perturb(VisionTransformer(**shape, **options, **fields), std=0.2).double()


@torch.no_grad()
@pytest.mark.parametrize("name", VITS)
def test_a_network_is_timms_with_weights_both_ways(name):
    theirs = timms(**VITS[name])
    ours, state = hierarch.from_timm(theirs), theirs.state_dict()
    assert ours.spec.block.type == "parallel"
    images = noise(2, 3, 64, 64).double()
    assert relative(ours(images), theirs(images)) < EXACT
    back = hierarch.export_weights(ours, layout="timm")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    report = hierarch.measure(ours.spec, sizes=[64, (48, 80)])
    assert report.params == sum(parameter.numel() for parameter in theirs.parameters())
    assert all(cost.macs == cost.claimed_macs for cost in report.sizes)


@torch.no_grad()
def test_blocks_one_after_the_other_are_another_function_of_as_many_weights():
    ours = hierarch.from_timm(timms())
    after = hierarch.build(ours.spec, block="pre_norm").double().eval()
    names = {name.replace("norm1.", "norm."): name for name in after.state_dict()}
    state = after.state_dict() | {names[n]: t for n, t in ours.state_dict().items()}
    images = noise(2, 3, 64, 64).double()
    after.load_state_dict(state | {n: state[n.replace("norm2", "norm1")] for n in state})
    assert relative(after(images), ours(images)) > 1e-2


@pytest.mark.parametrize("fields", [{"qk_norm": True}, {"proj_bias": False}], ids=str)
def test_what_a_spec_has_no_word_for_is_refused(fields):
    with pytest.raises(PeerError, match=r"no q_norm inside attention|in both layers, or in none"):
        hierarch.from_timm(timms(**fields))


@pytest.mark.parametrize("channel_mixer", ["mlp", "none"])
def test_claims_are_counts_in_windows_and_at_any_size(channel_mixer):
    spec = hierarch.load(tiny(block="parallel", layer_scale=0.1, channel_mixer=channel_mixer))
    report = hierarch.measure(spec, sizes=[64, (45, 70)])
    assert (report.verdict, report.params) == ("linear", params(spec))
    # one norm a block, 5NC each; stage 0 has two blocks on 16 x 16 tokens of 8 channels
    assert report.sizes[0].stages[0].parts["norm"] == (2 + 1) * 5 * 16 * 16 * 8


def test_the_engine_and_the_definition_agree():
    model = perturb(
        hierarch.build(tiny(block="parallel", layer_scale=0.1, head={"num_classes": 5}))
    )
    images = noise(2, 3, 45, 70)
    with torch.no_grad():
        logits = model(images)
        with engine.disabled():
            torch.testing.assert_close(logits, model(images), rtol=0, atol=1e-5)


def test_a_drop_path_drops_both_branches_together():
    spec = hierarch.load(tiny(block="parallel", drop_path_rate=0.5))
    block = spec.plan()[0].blocks[0]
    module = perturb(block.spec.build(block, drop_path=0.5)).train()
    x = noise(64, 4, 4, 8)
    changed = (module(x) - x).flatten(1)
    kept = changed.any(1)
    assert 8 < int(kept.sum()) < 56
    wanted = 2 * (module.eval()(x) - x).flatten(1)
    torch.testing.assert_close(changed[kept], wanted[kept], rtol=1e-4, atol=1e-5)


def test_a_drawing_shows_two_branches_that_begin_at_the_norm():
    found = steps(hierarch.load(tiny(block="parallel")).plan()[0].blocks[0])
    assert next(step.name for step in found if step.is_module) == "norm"
    branches = {module for step in found for skip in step.skips for module in skip.modules}
    assert branches | {step.name for step in found} >= {"mixer", "mlp"}
    assert len([step for step in found if step.name == "add"]) == 2
    texts = plots.architecture(tiny(block="parallel") | {"mixer": "pooling"}).axes[0].texts
    height = {text.get_text(): text.get_position()[1] for text in texts}
    # the inner branch is below the line, and the outer one above, as the block's title
    assert height["MLP ×2, gelu"] < height["pooling"] < height["parallel, pooling kernel_size=3"]
