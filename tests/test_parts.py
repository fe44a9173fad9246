"""Every part but the windowed mixers, compared with its formula or torch.nn."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny
from hypothesis import HealthCheck, given, settings
from strategies import backbone_specs, image_sizes
from torch import nn

import hierarch
from hierarch.mixers.token_mlp import TokenMlpSpec
from hierarch.nn.layers import LayerScale
from hierarch.spec import registry
from hierarch.spec.claim import claim
from hierarch.spec.grid import tokens
from hierarch.spec.params import params

NORMS = ["layer_norm", "group_norm", "affine", "batch_norm"]
SIZES = [(1, 1), (2, 1), (1, 7), (6, 6), (7, 9), (8, 13), (16, 5)]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def part(kind, name, **fields):
    return registry.get(kind, name)(**fields)


def same(found, wanted, **tolerances):
    torch.testing.assert_close(found, wanted, **(tolerances or {"rtol": 0, "atol": 0}))


def close(found, wanted):
    same(found, wanted, rtol=1e-5, atol=1e-5)


# activations


def test_activations_are_their_formulas():
    x = noise(3, 5, 7) * 2
    positive = torch.where(x > 0, x, 0)
    expected = {
        "gelu": x * torch.special.ndtr(x),
        "relu": positive,
        "squared_relu": positive**2,
        "silu": x * x.sigmoid(),
        "star_relu": positive**2,
        "tanh": (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    }
    assert expected.keys() == set(registry.names("activation"))
    for name, wanted in expected.items():
        close(part("activation", name).build()(x), wanted)


def test_star_relu_learns_one_scale_and_one_bias():
    act, x = part("activation", "star_relu").build(), noise(3, 5, 7)
    assert [parameter.shape for parameter in act.parameters()] == [(1,), (1,)]
    nn.init.constant_(act.scale, 0.8944)
    nn.init.constant_(act.bias, -0.4472)
    close(act(x), 0.8944 * x.clamp(min=0) ** 2 - 0.4472)


def test_every_layer_has_an_activation_of_its_own():
    model = hierarch.build(tiny(activation="star_relu"))
    acts = [block.mlp.act for stage in model.stages for block in stage.blocks]
    assert len({act.scale.data_ptr() for act in acts}) == len(acts) == 7


# norms


@pytest.mark.parametrize("grid", SIZES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_group_norm_normalizes_over_a_whole_image(grid, bias):
    norm = perturb(part("norm", "group_norm", eps=1e-3, bias=bias).build(8))
    assert [*norm.state_dict()] == (["weight", "bias"] if bias else ["weight"])
    x = noise(2, *grid, 8) * 3 + 1
    mean, variance = x.mean((1, 2, 3)), x.var((1, 2, 3), correction=0)
    normed = (x - mean.view(2, 1, 1, 1)) / (variance.view(2, 1, 1, 1) + 1e-3).sqrt()
    close(norm(x), normed * norm.weight + (norm.bias if bias else 0))


def test_group_norm_is_torchs():
    norm, theirs = perturb(part("norm", "group_norm").build(8)), nn.GroupNorm(1, 8)
    theirs.load_state_dict(norm.state_dict())
    x = noise(2, 5, 3, 8)
    close(norm(x), theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_is_torchs(bias):
    norm = perturb(part("norm", "layer_norm", eps=1e-3, bias=bias).build(8))
    theirs = nn.LayerNorm(8, eps=1e-3, bias=bias)
    theirs.load_state_dict(norm.state_dict())
    x = noise(2, 5, 3, 8)
    same(norm(x), theirs(x))


def test_batch_norm_is_torchs():
    norm = perturb(part("norm", "batch_norm", eps=1e-3, momentum=0.3).build(8))
    theirs = nn.BatchNorm2d(8, eps=1e-3, momentum=0.3)
    theirs.load_state_dict(norm.state_dict() | {"num_batches_tracked": torch.tensor(0)})
    for seed, mode in enumerate((False, True, False)):
        x = noise(2, 5, 3, 8, seed=seed) * 3 + 1
        close(norm.train(mode)(x), theirs.train(mode)(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        close(norm.running_mean, theirs.running_mean)
        close(norm.running_var, theirs.running_var)


def test_running_statistics_start_anew_after_a_reset():
    norm = perturb(part("norm", "batch_norm").build(8))
    norm.reset_parameters()
    assert not norm.running_mean.any()
    assert (norm.running_var == 1).all()


@pytest.mark.parametrize("block", ["pre_norm", "post_norm", "single_residual", "parallel"])
def test_a_network_may_have_no_norm_at_all(block):
    spec = hierarch.load(tiny(block=block, norm="none", head={"num_classes": 5}))
    report = hierarch.measure(spec, sizes=[64])
    assert (report.verdict, report.params) == ("linear", params(spec))
    assert all(stage.parts["norm"] == 0 for stage in report.sizes[0].stages)
    x, one = noise(2, 8, 8, 8), perturb(hierarch.build(spec)).stages[0].blocks[0]
    if block == "single_residual":
        wanted = x + one.mlp(one.mixer(x))
    elif block == "parallel":
        wanted = x + one.mixer(x) + one.mlp(x)
    else:
        wanted = x + one.mixer(x)
        wanted = wanted + one.mlp(wanted)
    close(one(x), wanted)


def test_affine_scales_and_shifts_each_channel():
    norm, x = perturb(part("norm", "affine").build(8)), noise(2, 5, 3, 8)
    expected = [x[..., c] * norm.weight[c] + norm.bias[c] for c in range(8)]
    close(norm(x), torch.stack(expected, dim=-1))


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("init", [1, 0, 0.5])
def test_a_norm_starts_at_init_also_after_a_reset(name, init):
    norm = part("norm", name).build(8, init=init)
    for _ in range(2):
        assert (norm.weight == init).all()
        assert not norm.bias.any()
        perturb(norm)
        norm.reset_parameters()


def test_every_norm_is_tested():
    assert sorted([*NORMS, "none"]) == registry.names("norm")


# any network


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(backbone_specs(), image_sizes(1, 40))
def test_any_network_runs_and_its_maps_have_the_claimed_grids(spec, size):
    model = perturb(hierarch.build(spec))
    out = model(noise(2, spec.stem.in_chans, *size))
    if spec.head:
        assert out.shape == (2, spec.head.num_classes or spec.stages[-1].dim)
        return
    grids = [stage.grid for stage in claim(spec, size).stages]
    expected = [(2, spec.stages[i].dim, *grids[i]) for i in spec.outputs]
    assert [tuple(m.shape) for m in out] == expected


# blocks


def block(name, *, norm="layer_norm", layer_scale=0.5, mixer="depthwise_conv", **fields):
    """The only block of a network, with noise on every parameter."""
    spec = {
        "stages": [{"dim": 8, "depth": 1}],
        "mixer": mixer,
        "block": {"type": name, **fields},
        "norm": norm,
        "layer_scale": layer_scale,
    }
    return perturb(hierarch.build(spec)).stages[0].blocks[0]


@pytest.mark.parametrize("norm", NORMS)
def test_blocks_are_their_formulas(norm):
    x = noise(2, 5, 6, 8)
    pre, post, single, parallel = (
        block(name, norm=norm) for name in ("pre_norm", "post_norm", "single_residual", "parallel")
    )
    y = x + pre.layer_scale1.gamma * pre.mixer(pre.norm1(x))
    close(pre(x), y + pre.layer_scale2.gamma * pre.mlp(pre.norm2(y)))
    y = x + post.layer_scale1.gamma * post.norm1(post.mixer(x))
    close(post(x), y + post.layer_scale2.gamma * post.norm2(post.mlp(y)))
    close(single(x), x + single.layer_scale.gamma * single.mlp(single.norm(single.mixer(x))))
    normed = parallel.norm(x)
    y = x + parallel.layer_scale.gamma * (parallel.mixer(normed) + parallel.mlp(normed))
    close(parallel(x), y)
    close(parallel.after(x, parallel.mixer(parallel.before(x))), y)


def test_a_residual_scale_multiplies_the_skip_connection():
    x, scaled = noise(2, 5, 6, 8), block("pre_norm", residual_scale=0.25)
    factors = [scaled.residual_scale1.gamma, scaled.residual_scale2.gamma]
    assert all(factor.std() > 0 and abs(factor.mean() - 0.25) < 0.1 for factor in factors)
    y = factors[0] * x + scaled.layer_scale1(scaled.mixer(scaled.norm1(x)))
    close(scaled(x), factors[1] * y + scaled.layer_scale2(scaled.mlp(scaled.norm2(y))))
    spec = tiny(block={"type": "pre_norm", "residual_scale": 0.25})
    scales = [m for m in hierarch.build(spec).modules() if isinstance(m, LayerScale)]
    assert len(scales) == 14
    assert all((scale.gamma == 0.25).all() for scale in scales)


def test_no_residual_scale_is_no_parameter():
    plain = block("pre_norm", layer_scale=None)
    x, names = noise(2, 5, 6, 8), [name for name, _ in plain.named_parameters()]
    assert not [name for name in names if "scale" in name]
    y = x + plain.mixer(plain.norm1(x))
    close(plain(x), y + plain.mlp(plain.norm2(y)))


@pytest.mark.parametrize("norm", NORMS)
def test_a_post_norm_block_starts_as_the_identity(norm):
    spec = tiny(block="post_norm", norm=norm)
    with torch.device("meta"):
        moved = hierarch.build(spec)
    moved.to_empty(device="cpu")
    for parameter in moved.parameters():
        nn.init.constant_(parameter, float("nan"))
    for module in moved.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    x = noise(2, 9, 10, 8)
    for model in (hierarch.build(spec), moved):
        for one in model.stages[0].blocks:
            same(one(x), x)
        assert all((stage.norm.weight == 1).all() for stage in model.stages)


def test_a_block_without_biases():
    plain = hierarch.build(tiny(mlp_bias=False)).stages[0].blocks[0].mlp
    assert [name for name, _ in plain.named_parameters()] == ["fc1.weight", "fc2.weight"]
    x = noise(2, 5, 6, 8)
    close(plain(x), F.linear(F.gelu(F.linear(x, plain.fc1.weight)), plain.fc2.weight))


@pytest.mark.parametrize("name", registry.names("block"))
def test_every_block_drops_its_branches_in_training(name):
    model = perturb(hierarch.build(tiny(block=name, drop_path_rate=0.9))).train()
    last, x = model.stages[-1].blocks[-1], noise(64, 2, 2, 24)
    unchanged = (last(x) == x).flatten(1).all(1)
    assert 0 < unchanged.sum() < 64
    assert not (last.eval()(x) == x).flatten(1).all(1).any()


# stems and downsamplings


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(7, 4, 2), (4, 4, 0), (3, 2, 1), (2, 3, 0)]
)
def test_a_convolution_is_torchs_and_a_map_smaller_than_its_kernel_is_padded(
    size, kernel, stride, padding
):
    fields = {"kernel_size": kernel, "stride_size": stride, "padding": padding}
    stem_spec = part("stem", "conv_stem", norm={"type": "layer_norm"}, **fields)
    down_spec = part("downsample", "conv_downsample", norm={"type": "affine"}, **fields)
    stem, down = perturb(stem_spec.build(8)), perturb(down_spec.build(3, 8))
    images = noise(2, 3, *size)
    missing = [max(0, kernel - 2 * padding - n) for n in size]
    padded = F.pad(images, (0, missing[1], 0, missing[0]))
    theirs = nn.Conv2d(3, 8, kernel, stride=stride, padding=padding)
    theirs.load_state_dict(stem.proj.state_dict())
    grid = tuple(
        (n + m + 2 * padding - kernel) // stride + 1 for n, m in zip(size, missing, strict=True)
    )
    assert stem_spec.grid(size) == down_spec.grid(size) == grid
    out = stem(images)
    assert out.shape == (2, *grid, 8)
    close(out, stem.norm(theirs(padded).permute(0, 2, 3, 1)))
    x = images.permute(0, 2, 3, 1)
    theirs.load_state_dict(down.conv.state_dict())
    normed = F.pad(down.norm(x).permute(0, 3, 1, 2), (0, missing[1], 0, missing[0]))
    close(down(x), theirs(normed).permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("kernel", [2, 3])
def test_pooling_takes_the_maps_own_tokens_at_its_edges(size, pool, kernel):
    spec = part("downsample", "pool_downsample", pool=pool, kernel_size=kernel, norm="layer_norm")
    down = perturb(spec.build(3, 8))
    x = noise(2, *size, 3) - 3  # all negative: a zero from outside would be the largest
    normed, before = down.norm(x), (kernel - 1) // 2
    height, width = spec.grid(size)
    wanted = torch.empty(2, height, width, 3)
    for i, j in itertools.product(range(height), range(width)):
        rows = slice(max(0, 2 * i - before), 2 * i - before + kernel)
        columns = slice(max(0, 2 * j - before), 2 * j - before + kernel)
        patch = normed[:, rows, columns].flatten(1, 2)
        wanted[:, i, j] = patch.amax(1) if pool == "max" else patch.mean(1)
    close(down(x), down.proj(wanted))


def test_a_convolution_without_bias_or_norm():
    stem = part("stem", "conv_stem", bias=False).build(8)
    down = part("downsample", "conv_downsample", bias=False).build(8, 16)
    assert [*stem.state_dict(), *down.state_dict()] == ["proj.weight", "conv.weight"]


@pytest.mark.parametrize(
    "fields",
    [
        {"norm": "layer_norm"},
        {"strides": [2, 1], "inner_norm": "layer_norm", "activation": "gelu", "bias": False},
        {"strides": [2, 2, 2], "kernel_size": 5, "activation": "star_relu", "hidden_ratio": 1.5},
    ],
    ids=str,
)
def test_a_stack_of_convolutions_is_torchs(fields):
    spec = hierarch.load(
        {"mixer": "identity", "stem": {"type": "conv_stack", **fields}}
        | {"stages": [{"dim": 8, "depth": 1}]}
    )
    stem = perturb(hierarch.build(spec)).stem.double()
    layers = []
    for conv, norm, act in zip(stem.convs, stem.norms, stem.acts, strict=True):
        layers += [conv, ChannelsLast(norm), act]
    plain = nn.Sequential(*layers, stem.proj, ChannelsLast(stem.norm))
    images = noise(2, 3, 41, 30).double()
    close(stem(images).permute(0, 3, 1, 2), plain(images))
    report = hierarch.measure(spec, sizes=[32, (41, 30), (3, 5)])
    assert (report.verdict, report.params) == ("linear", params(spec))


class ChannelsLast(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_norm_may_follow_a_downsampling():
    stage = {"dim": 8, "depth": 1}
    down = {"type": "conv_downsample", "norm": "layer_norm", "out_norm": "affine"}
    spec = hierarch.load({"mixer": "identity", "downsample": down, "stages": [stage, stage]})
    layer = perturb(hierarch.build(spec)).stages[1].downsample.double()
    x = noise(2, 9, 7, 8).double()
    inner = layer.conv(layer.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    close(layer(x), layer.out_norm(inner))
    report = hierarch.measure(spec, sizes=[32, (41, 30)])
    assert (report.verdict, report.params) == ("linear", params(spec))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (2, 3, 0)])
def test_the_rest_of_a_map_may_be_padded(size, kernel, stride, padding):
    fields = {"kernel_size": kernel, "stride_size": stride, "padding": padding}
    spec = part("downsample", "conv_downsample", pad_rest=True, norm={"type": "affine"}, **fields)
    down, x = perturb(spec.build(3, 8)), noise(2, *size, 3)
    rest = [-n % stride for n in size]
    padded = F.pad(down.norm(x).permute(0, 3, 1, 2), (0, rest[1], 0, rest[0]))
    out = down(x)
    close(out, down.conv(padded).permute(0, 2, 3, 1))
    assert out.shape[1:3] == spec.grid(size)
    macs = out[0].numel() * kernel**2 * 3
    assert spec.macs(in_dim=3, dim=8, grid=size) == macs
    slots = math.prod(n + more for n, more in zip(size, rest, strict=True))
    wasted = macs * (slots - math.prod(size)) // slots
    assert spec.padding_macs(in_dim=3, dim=8, grid=size) == wasted


def test_patch_merging_norms_before_or_after_its_projection():
    x = noise(2, 6, 4, 8)
    before, after = (
        perturb(part("downsample", "patch_merging", norm_last=last).build(8, 16))
        for last in (False, True)
    )
    assert (before.norm.weight.shape, after.norm.weight.shape) == ((32,), (16,))
    corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    joined = torch.cat(corners, dim=-1)
    close(before(x), F.linear(before.norm(joined), before.reduction.weight))
    close(after(x), after.norm(F.linear(joined, after.reduction.weight)))


def convolutional(**fields):
    return tiny(
        stem={"type": "conv_stem"},
        downsample={"type": "conv_downsample", "kernel_size": 3, "stride_size": 3, "padding": 1},
        **fields,
    )


@pytest.mark.parametrize("size", [(1, 1), (35, 50), (64, 64), (97, 3)], ids=str)
def test_maps_of_a_convolutional_network_have_the_claimed_grids(size):
    model = perturb(hierarch.build(convolutional()))
    assert model.feature_info.reduction() == [4, 12, 36]
    grids = [stage.grid for stage in claim(model.spec, size).stages]
    assert [tuple(m.shape[2:]) for m in model(noise(1, 3, *size))] == grids


def test_a_first_stage_that_opens_with_a_downsampling_counts_in_its_stride():
    stages = [{"dim": 8, "depth": 1, "downsample": "conv_downsample"}, {"dim": 16, "depth": 1}]
    model = hierarch.build({"stages": stages, "mixer": "identity"})
    assert model.feature_info.strides() == [8, 16]
    assert [tuple(m.shape) for m in model(noise(1, 3, 64, 96))] == [(1, 8, 8, 12), (1, 16, 4, 6)]


# heads


def test_a_head_takes_the_mean_before_the_norm_or_after_it():
    images = noise(2, 3, 40, 56)
    for pool_first in (False, True):
        head = {
            "num_classes": 5,
            "pool_first": pool_first,
            "norm": {"type": "layer_norm", "eps": 0.1},
        }
        model = perturb(hierarch.build(tiny(head=head)))
        [raw] = model.forward_intermediates(images, 1, output_fmt="NHWC", intermediates_only=True)
        norm = model.head.norm if pool_first else model.norm
        assert (norm.eps, [*(model.norm if pool_first else model.head.norm).parameters()]) == (
            0.1,
            [],
        )
        mean = norm(raw.mean((1, 2))) if pool_first else norm(raw).mean((1, 2))
        close(model(images), F.linear(mean, model.head.fc.weight, model.head.fc.bias))
        close(model.forward_head(model.forward_features(images), pre_logits=True), mean)


@pytest.mark.parametrize("norm", NORMS)
def test_a_hidden_layer_is_linear_activation_norm(norm):
    head = {"num_classes": 5, "hidden_ratio": 1.5, "activation": "squared_relu", "norm": norm}
    model = perturb(hierarch.build(tiny(head=head)))
    hidden, fc = model.head.hidden, model.head.fc
    assert (hidden.fc.weight.shape, fc.weight.shape) == ((36, 24), (5, 36))
    features = noise(2, 3, 4, 24)
    x = F.linear(features.mean((1, 2)), hidden.fc.weight, hidden.fc.bias).clamp(min=0) ** 2
    x = hidden.norm(x[:, None, None]).flatten(1)
    close(model.forward_head(features), F.linear(x, fc.weight, fc.bias))
    assert model.get_classifier() is fc


def test_the_norm_of_a_hidden_layer_may_be_another_than_the_heads():
    head = {"hidden_ratio": 2, "norm": "none", "hidden_norm": {"type": "layer_norm", "eps": 1e-3}}
    spec = hierarch.load(tiny(head=head))
    model = hierarch.build(spec)
    assert isinstance(model.norm, nn.Identity)
    assert model.head.hidden.norm.eps == 1e-3
    report = hierarch.measure(spec, sizes=[64])
    assert (report.verdict, report.params) == ("linear", params(spec))


@pytest.mark.parametrize("pool_first", [False, True])
@pytest.mark.parametrize("hidden_ratio", [None, 2])
def test_a_new_classifier_keeps_the_other_layers_of_the_head(pool_first, hidden_ratio):
    head = {
        "num_classes": 5,
        "pool_first": pool_first,
        "hidden_ratio": hidden_ratio,
        "drop_rate": 0.5,
    }
    model = perturb(hierarch.build(tiny(head=head)))
    images, before = noise(2, 3, 32, 32), dict(model.state_dict())
    model.reset_classifier(3)
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name in before:
        assert torch.equal(after[name], before[name]) != name.startswith("head.fc.")
    assert model(images).shape == (2, 3)
    same(model(images), model(images))
    model.reset_classifier(0)
    close(model(images), model.forward_head(model.forward_features(images), pre_logits=True))
    assert model(images).shape == (2, 24)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    report = hierarch.measure(model.spec, [32]).sizes[0]
    assert report.macs == report.claimed_macs


# token MLPs


@pytest.mark.parametrize("hidden_dim", [None, 7])
def test_a_token_mlp_on_its_own_grid_is_linear_layers_over_positions(hidden_dim):
    mlp = perturb(TokenMlpSpec(grid=(3, 5), hidden_dim=hidden_dim).build(8), std=0.5)
    x = noise(2, 3, 5, 8)
    for image, out in zip(x, mlp(x), strict=True):
        for c in range(8):
            y = mlp.fc1.weight @ image[..., c].flatten() + mlp.fc1.bias
            y = mlp.fc2.weight @ F.gelu(y) + mlp.fc2.bias if hidden_dim else y
            close(out[..., c].flatten(), y)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (6, 10), (2, 9), (12, 4)], ids=str)
@pytest.mark.parametrize("hidden_dim", [None, 7])
def test_a_token_mlp_on_another_grid_keeps_the_scale_of_its_sums(grid, hidden_dim):
    mlp = TokenMlpSpec(grid=(3, 5), hidden_dim=hidden_dim).build(4)
    for parameter in mlp.parameters():  # each output the mean of all, plus 1
        nn.init.ones_(parameter)
    nn.init.constant_(mlp.fc1.weight, 1 / 15)
    x = noise(1, 1, 1, 4).expand(2, *grid, 4)
    y = x + 1
    close(mlp(x), F.gelu(y) * 7 + 1 if hidden_dim else y)


@pytest.mark.parametrize("grid", [(1, 1), (6, 10), (2, 9)], ids=str)
@pytest.mark.parametrize("hidden_dim", [None, 7])
def test_a_token_mlp_is_resized_like_a_position(grid, hidden_dim):
    def resized(rows):
        image = rows.reshape(1, -1, 3, 5)
        return F.interpolate(image, grid, mode="bicubic", align_corners=False).flatten(2)[0]

    mlp = perturb(TokenMlpSpec(grid=(3, 5), hidden_dim=hidden_dim).build(4), std=0.5)
    x = noise(2, *grid, 4)
    own = TokenMlpSpec(grid=grid, hidden_dim=hidden_dim).build(4).eval()
    first, last = mlp.fc1, mlp.fc2 or mlp.fc1
    incoming = resized(first.weight) * 15 / tokens(grid)
    outgoing = resized((incoming if last is first else last.weight).T).T
    own.fc1.weight.copy_(outgoing if last is first else incoming)
    (own.fc2 or own.fc1).weight.copy_(outgoing)
    if hidden_dim:
        own.fc1.bias.copy_(first.bias)
    (own.fc2 or own.fc1).bias.copy_(resized(last.bias)[0])
    close(mlp(x), own(x))
