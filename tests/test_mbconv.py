"""Inverted residuals as a mixer and as a downsampling, and convolutions that are padded as
TensorFlow pads them, beside timm's."""

import pytest
import torch
from helpers import noise, perturb, tiny
from timm.layers import Conv2dSame
from timm.models.maxxvit import MaxxVitConvCfg, MbConvBlock, Stem
from torch import nn

import hierarch
from hierarch import engine
from hierarch.errors import SpecError
from hierarch.nn.convolution import same_padded
from hierarch.spec.params import params
from hierarch.spec.registry import get

GELU = {"type": "gelu", "approximate": "tanh"}
NORM = {"type": "batch_norm", "eps": 1e-3}
FIELDS = {"norm": NORM, "activation": GELU}
CONFIG = MaxxVitConvCfg(norm_eps=1e-3, act_layer="gelu_tanh", padding="same")
LAYERS = {
    "expand": "conv1_1x1",
    "norm1": "norm1",
    "conv": "conv2_kxk",
    "norm2": "norm2",
    "squeeze.fc1": "se.fc1",
    "squeeze.fc2": "se.fc2",
    "reduce": "conv3_1x1",
}
SIZES = [(1, 1), (2, 3), (7, 12), (8, 8), (13, 5)]


def carry(ours, theirs):
    """Our weights and statistics, in timm's shapes."""
    state = ours.state_dict()
    like = {name: t for name, t in theirs.state_dict().items() if name in state}
    theirs.load_state_dict({name: state[name].reshape(t.shape) for name, t in like.items()})


def carried(pairs, ours, theirs):
    perturb(ours)
    for here, there in pairs.items():
        carry(ours.get_submodule(here), theirs.get_submodule(there))
    return ours.double().eval(), theirs.double().eval()


def nchw(x):
    return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", SIZES)
def test_the_mixer_is_timms_block_without_its_norm_and_its_residual(size):
    ours, theirs = carried(
        LAYERS, get("mixer", "mbconv")(**FIELDS).build(16), MbConvBlock(16, 16, cfg=CONFIG)
    )
    theirs.pre_norm = nn.Identity()
    x = noise(2, *size, 16, dtype=torch.float64)
    torch.testing.assert_close(nchw(x + ours(x)), theirs(nchw(x)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dims", [(16, 16), (16, 24)])
def test_the_downsampling_is_timms_block_with_a_stride(dims, size):
    pairs = {f"branch.{here}": there for here, there in LAYERS.items()} | {"norm": "pre_norm"}
    if dims[0] != dims[1]:
        pairs["shortcut"] = "shortcut.expand"
    spec = get("downsample", "mbconv")(**FIELDS)
    ours, theirs = carried(pairs, spec.build(*dims), MbConvBlock(*dims, stride=2, cfg=CONFIG))
    x = noise(2, *size, dims[0], dtype=torch.float64)
    found = ours(x)
    assert found.shape[1:3] == spec.grid(size)
    torch.testing.assert_close(nchw(found), theirs(nchw(x)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [*SIZES, (33, 64)])
def test_the_stem_is_timms(size):
    fields = {"strides": [2, 1], "hidden_ratio": 0.5, "padding": "same", "inner_norm": NORM}
    spec = get("stem", "conv_stack")(**fields, activation=GELU)
    theirs = Stem(3, (8, 16), padding="same", bias=True, act_layer="gelu_tanh", norm_eps=1e-3)
    pairs = {"convs.0": "conv1", "norms.0": "norm1", "proj": "conv2"}
    ours, theirs = carried(pairs, spec.build(16), theirs)
    images = noise(2, 3, *size, dtype=torch.float64)
    found = ours(images)
    assert found.shape[1:3] == spec.grid(size)
    torch.testing.assert_close(nchw(found), theirs(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_padding_is_that_of_a_same_convolution(size, kernel, stride):
    conv = Conv2dSame(3, 4, kernel, stride=stride)
    x = noise(1, *size, 3)
    padded = same_padded(x, kernel_size=kernel, stride=stride)
    found = nn.functional.conv2d(nchw(padded), conv.weight, conv.bias, stride)
    torch.testing.assert_close(found, conv(nchw(x)))


def test_half_and_same_differ_at_even_sizes_alone():
    half, same = (
        get("stem", "conv_stack")(padding=padding).build(8) for padding in ("half", "same")
    )
    same.load_state_dict(half.state_dict())
    odd, even = noise(1, 3, 29, 29), noise(1, 3, 32, 32)
    torch.testing.assert_close(half(odd), same(odd))
    assert not torch.allclose(half(even), same(even), atol=1e-3)


NETWORK = {
    "stem": {"type": "conv_stack", "strides": [2, 1], "padding": "same", "inner_norm": NORM},
    "stem_dim": 12,
    "mixer": [{"type": "window_attention", "head_dim": 4, "window_size": 4}, "mbconv"],
    "norm": ["layer_norm", "batch_norm"],
    "channel_mixer": ["mlp", "none"],
    "downsample": "mbconv",
    "stages": [{"dim": 8, "depth": 3, "downsample": "mbconv"}, {"dim": 16, "depth": 2}],
}


@pytest.mark.parametrize("size", [1, 33, 64, (50, 97)])
@pytest.mark.parametrize("fields", [{}, {"squeeze_ratio": None, "bias": False, "kernel_size": 5}])
def test_claims_are_counts(size, fields):
    one = {"type": "mbconv", **fields}
    stages = [NETWORK["stages"][0] | {"downsample": one}, NETWORK["stages"][1]]
    spec = hierarch.load(NETWORK | {"mixer": one, "downsample": one, "stages": stages})
    report = hierarch.measure(spec, sizes=[size])
    [cost] = report.sizes
    assert (cost.macs, report.params) == (cost.claimed_macs, params(spec))
    for stage in cost.stages:
        assert stage.parts == stage.claimed_parts


@pytest.mark.parametrize("training", [False, True])
def test_the_engine_runs_it_as_it_is_defined(training):
    model = perturb(hierarch.build(NETWORK)).double().train(training)
    images = noise(2, 3, 50, 41, dtype=torch.float64)
    state = {name: t.clone() for name, t in model.state_dict().items()}
    found = model(images)
    model.load_state_dict(state)
    with engine.disabled():
        wanted = model(images)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_stem_has_a_width_of_its_own_only_before_a_downsampling():
    model = hierarch.build(NETWORK)
    assert model.stem.proj.out_channels == 12
    assert model.stages[0].downsample.branch.expand.in_features == 12
    with pytest.raises(SpecError, match="stem_dim: should be the dim of stage 0, 8, which has no"):
        hierarch.load(tiny(stem_dim=12))
    assert hierarch.load(tiny(stem_dim=8)).plan() == hierarch.load(tiny()).plan()


def test_a_budget_leaves_the_stem_as_wide_as_it_is():
    wider = hierarch.swap(NETWORK, "depthwise_conv", match="macs", at=64)
    assert wider.stem_dim == 12
    assert [stage.dim for stage in wider.stages] != [8, 16]


def test_gelu_by_a_tanh():
    exact, rough = (get("activation", "gelu")(**f).build() for f in ({}, {"approximate": "tanh"}))
    x = torch.linspace(-4, 4, 101)
    assert 1e-4 < float((exact(x) - rough(x)).abs().max()) < 1e-3
    assert isinstance(get("activation", "tanh")().build(), nn.Tanh)
