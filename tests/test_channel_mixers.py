"""The channel mixers: conformance, and the networks and papers that they are from."""

import pytest
import torch
from helpers import noise, perturb

import hierarch
from hierarch.spec.load import load
from hierarch.spec.params import params
from hierarch.spec.registry import names
from hierarch.testing import ConformanceError, check_channel_mixer

EVERY = [
    "mlp",
    "glu",
    "conv_mlp",
    {"type": "conv_mlp", "kernel_size": 5, "inner_activation": "relu"},
    "grn_mlp",
]


def network(channel_mixer, **fields):
    stages = [{"dim": 12, "depth": 2}, {"dim": 24, "depth": 1}]
    return load({"mixer": "pooling", "stages": stages, "channel_mixer": channel_mixer, **fields})


def test_every_channel_mixer_is_tested():
    tested = {"none", *(one if isinstance(one, str) else one["type"] for one in EVERY)}
    assert tested == set(names("channel_mixer"))


@pytest.mark.parametrize("dim", [1, 32])
@pytest.mark.parametrize("channel_mixer", EVERY, ids=str)
def test_channel_mixers_conform(channel_mixer, dim):
    check_channel_mixer(channel_mixer, dim=dim)


def test_a_wrong_claim_is_found(monkeypatch):
    from hierarch.channel_mixers.glu import GluSpec

    monkeypatch.setattr(GluSpec, "macs", lambda self, stage, *, grid: 1)
    with pytest.raises(ConformanceError, match="glu: claims 1 MACs on a grid of"):
        check_channel_mixer("glu")


@pytest.mark.parametrize("block", ["pre_norm", "post_norm", "single_residual", "parallel"])
@pytest.mark.parametrize("channel_mixer", [*EVERY, "none"], ids=str)
def test_claims_are_counts_in_every_block(channel_mixer, block):
    spec = network(channel_mixer, block=block, layer_scale=0.1, mlp_bias=False)
    report = hierarch.measure(spec, sizes=[32, (45, 70)])
    assert report.verdict == "linear"
    assert params(spec) == report.params


@pytest.mark.parametrize("block", ["pre_norm", "post_norm", "single_residual", "parallel"])
def test_without_a_channel_mixer_a_block_ends_after_its_token_mixer(block):
    model = perturb(hierarch.build(network("none", block=block)).eval().double())
    assert not [name for name, _ in model.named_parameters() if "mlp" in name or "norm2" in name]
    inner, x = model.stages[0].blocks[0], noise(2, 7, 9, 12).double()
    before = {"pre_norm": "norm1", "parallel": "norm"}
    mixed = inner.mixer(getattr(inner, before[block])(x) if block in before else x)
    mixed = inner.norm1(mixed) if block == "post_norm" else mixed
    torch.testing.assert_close(inner(x), x + mixed, rtol=0, atol=1e-12)


def channel_mixer_of(channel_mixer, **fields):
    model = perturb(hierarch.build(network(channel_mixer, **fields)).eval().double())
    return model.stages[0].blocks[0].mlp


def test_swiglu_is_dinov2s():
    from timm.layers import SwiGLUPacked

    theirs = SwiGLUPacked(12, 2 * 48, norm_layer=None).double()
    ours = channel_mixer_of("glu", activation="silu")
    theirs.load_state_dict(ours.state_dict())
    x = noise(2, 7, 9, 12).double()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("linear", [False, True])
def test_the_convolution_of_an_mlp_is_pvt_v2s(linear):
    from timm.models.pvt_v2 import MlpWithDepthwiseConv

    theirs = MlpWithDepthwiseConv(12, 48, extra_relu=linear).double()
    ours = channel_mixer_of({"type": "conv_mlp", "inner_activation": "relu" if linear else None})
    weights = {name.replace("conv.conv", "dwconv"): w for name, w in ours.state_dict().items()}
    theirs.load_state_dict(weights)
    x = noise(2, 7, 9, 12).double()
    found = theirs(x.flatten(1, 2), (7, 9)).view(x.shape)
    torch.testing.assert_close(ours(x), found, rtol=0, atol=1e-12)


def test_global_response_normalization_is_convnext_v2s():
    from timm.layers import GlobalResponseNormMlp

    theirs, ours = GlobalResponseNormMlp(12, 48).double(), channel_mixer_of("grn_mlp")
    theirs.load_state_dict(ours.state_dict())
    x = noise(2, 7, 9, 12).double()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_stages_may_have_their_own():
    spec = load(
        {
            "mixer": "pooling",
            "channel_mixer": "glu",
            "stages": [
                {"dim": 8, "depth": 1},
                {"dim": 16, "depth": 1, "channel_mixer": {"type": "conv_mlp", "kernel_size": 5}},
            ],
        }
    )
    assert [stage.blocks[0].channel_mixer.type for stage in spec.plan()] == ["glu", "conv_mlp"]
    assert load(hierarch.loads(hierarch.dump(spec))) == spec


def test_an_unknown_one_is_named_with_its_place():
    with pytest.raises(hierarch.SpecError, match=r"channel_mixer.*did you mean 'grn_mlp'"):
        network("grnmlp")
