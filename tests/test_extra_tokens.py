"""Tokens outside of the grid: what they cost, where they go, and which parts refuse them."""

import pytest
import torch
from helpers import noise, perturb

import hierarch
from hierarch import SpecError, engine
from hierarch.spec.params import params

VIT = {
    "input_size": 32,
    "stem": {"type": "patch_embed", "patch_size": 8},
    "mixer": {"type": "global_attention", "head_dim": 4},
    "position_embedding": {"type": "absolute", "grid": 4},
    "stages": [{"dim": 16, "depth": 2}],
    "head": {"num_classes": 5, "pool": "class_token"},
}
EXTRA = [
    {"class_token": True},
    {"class_token": True, "registers": 4, "positions": False},
    {"class_token": True, "distillation_token": True},
    {"class_token": True, "distillation_token": True, "registers": 2},
]


def network(extra, **fields):
    return hierarch.load({**VIT, "extra_tokens": extra, **fields})


@pytest.mark.parametrize("pool_first", [False, True])
@pytest.mark.parametrize("pool", ["mean", "class_token"])
@pytest.mark.parametrize("extra", EXTRA, ids=str)
def test_claims_are_counts(extra, pool, pool_first):
    head = {"num_classes": 5, "pool": pool, "pool_first": pool_first}
    spec = network(extra, head=head)
    report = hierarch.measure(spec, sizes=[32, (45, 70)])
    assert report.params == params(spec)
    for cost in report.sizes:
        assert cost.macs == cost.claimed_macs
        assert cost.head == cost.claimed_head
    # 4 x 4 tokens, and the extra ones
    [stage] = report.sizes[0].stages
    assert stage.grid == (1, 16 + spec.extra_tokens.count)


@pytest.mark.parametrize("extra", EXTRA, ids=str)
def test_the_engine_and_the_definition_agree(extra):
    model = perturb(hierarch.build(network(extra)).eval())
    images = noise(3, 3, 45, 70)
    with torch.no_grad():
        logits = model(images)
        with engine.disabled():
            torch.testing.assert_close(logits, model(images), rtol=0, atol=1e-5)


def test_maps_hold_the_tokens_of_the_grid_alone():
    model = perturb(hierarch.build(network(EXTRA[1], head=None)).eval())
    images = noise(2, 3, 45, 70)
    [features] = model(images)
    assert features.shape == (2, 16, 6, 9)
    row = model.maps(images, [0])[0]
    assert row.shape == (2, 1, 5 + 6 * 9, 16)
    [intermediate] = model.forward_intermediates(images, intermediates_only=True)
    wanted = row[:, 0, 5:].unflatten(1, (6, 9)).permute(0, 3, 1, 2)
    torch.testing.assert_close(intermediate, wanted, rtol=0, atol=0)


def test_a_class_token_is_classified_and_the_mean_leaves_extra_tokens_out():
    token = perturb(hierarch.build(network(EXTRA[1])).eval().double())
    mean = hierarch.build(network(EXTRA[1], head={"num_classes": 5})).eval().double()
    mean.load_state_dict(token.state_dict())
    images = noise(2, 3, 32, 32).double()
    features = token.forward_features(images)
    assert torch.equal(token.forward_head(features, pre_logits=True), features[:, 0, 0])
    torch.testing.assert_close(
        mean.forward_head(features, pre_logits=True), features[:, 0, 5:].mean(1)
    )


def test_two_classifiers_are_averaged_and_both_replaced():
    model = perturb(hierarch.build(network(EXTRA[2])).eval().double())
    features = model.forward_features(noise(2, 3, 32, 32).double())
    token, distilled = features[:, 0, 0], features[:, 0, 1]
    wanted = (model.head.fc(token) + model.head.fc_distilled(distilled)) / 2
    torch.testing.assert_close(model.forward_head(features), wanted)
    model.reset_classifier(7)
    assert model.forward_head(features).shape == (2, 7)
    assert model.head.fc_distilled.out_features == 7
    model.reset_classifier(0)
    torch.testing.assert_close(model.forward_head(features), (token + distilled) / 2)


def test_all_of_them_learn_and_can_be_frozen():
    model = hierarch.build(network(EXTRA[3])).train()
    model(noise(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.extra_tokens.parameters())
    model.freeze(0)
    assert not any(p.requires_grad for p in model.extra_tokens.parameters())


def test_a_row_of_tokens_can_be_exported_for_any_size():
    model = perturb(hierarch.build(network(EXTRA[0])).eval())
    side = torch.export.Dim("side", min=2, max=32)
    program = torch.export.export(
        model, (noise(1, 3, 64, 64),), dynamic_shapes={"images": {2: 8 * side, 3: 8 * side}}
    )
    images = noise(1, 3, 160, 160)
    torch.testing.assert_close(program.module()(images), model(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixer": {"type": "window_attention", "head_dim": 4}}, "these do: window_attention"),
        ({"mixer": "pooling", "channel_mixer": "conv_mlp"}, "these do: pooling, conv_mlp"),
        ({"norm": "group_norm"}, "these do: group_norm"),
        ({"position": "conditional"}, "these do: conditional"),
        ({"block": {"type": "pre_norm", "position": "conditional"}}, "these do: pre_norm"),
        ({"stages": [{"dim": 16, "depth": 1}] * 2}, "is for a network of one stage"),
        ({"extra_tokens": {"class_token": False}, "head": None}, "has no token; leave it out"),
        (
            {"extra_tokens": {"class_token": False, "registers": 1}},
            "head.pool: is for a network with",
        ),
        ({"extra_tokens": None}, "head.pool: is for a network with a class token"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        hierarch.load({**VIT, "extra_tokens": EXTRA[0], **fields})


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"],
)
def test_timms_networks_at_another_size(name):
    import timm

    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    theirs = timm.create_model(name, img_size=112, dynamic_img_size=True, **small)
    theirs = perturb(theirs.eval().double())
    ours = hierarch.from_timm(theirs)
    back = hierarch.export_weights(ours, layout="timm")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items())
    images = noise(2, 3, 112, 112).double()
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-10)
