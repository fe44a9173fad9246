"""The network's layers: initialization, and their behavior in training."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from helpers import noise, perturb, tiny
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import hierarch
from hierarch.nn.layers import DropPath, LayerScale
from hierarch.positions.absolute import AbsolutePosition

HEAD = {"num_classes": 5}
EVERYTHING = {"layer_scale": 0.1, "position_embedding": {"type": "absolute", "grid": [5, 7]}}


def same(found, wanted, **tolerances):
    torch.testing.assert_close(found, wanted, **(tolerances or {"rtol": 0, "atol": 0}))


# how it starts


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_weights_start_as_published(mixer):
    torch.manual_seed(0)
    stages = [{"dim": 96, "depth": 2}, {"dim": 192, "depth": 2}]
    model = hierarch.build(tiny(mixer, stages=stages, head=HEAD))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-5
            assert (module.weight == 1).all()
            assert not module.bias.any()
    drawn = {"window_attention": "relative_position_bias_table", "window_mlp": "weight"}[mixer]
    for stage in model.stages:
        for block in stage.blocks:
            assert getattr(block.mixer, drawn).std().item() == pytest.approx(0.02, rel=0.1)
            assert mixer == "window_attention" or not block.mixer.bias.any()


def test_layer_scale_and_position_start_at_the_specs_values():
    model = hierarch.build(tiny(**EVERYTHING))
    scales = [module for module in model.modules() if isinstance(module, LayerScale)]
    assert len(scales) == 14
    assert all((scale.gamma == 0.1).all() for scale in scales)
    assert model.position_embedding.table.shape == (1, 5, 7, 8)
    assert model.position_embedding.table.std().item() == pytest.approx(0.02, rel=0.2)


def test_computed_buffers_are_not_in_the_state_dict():
    model = hierarch.build(tiny(**EVERYTHING))
    assert any(name.endswith("relative_position_index") for name, _ in model.named_buffers())
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


NETWORKS = {
    "window_attention": {},
    "window_mlp": {"mixer": {"type": "window_mlp", "head_dim": 4, "window_size": 4}},
    "depthwise_conv": {"mixer": {"type": "depthwise_conv", "kernel_size": 3}},
    "swin v2": {
        "mixer": {"type": "cosine_window_attention", "head_dim": 4, "window_size": 4},
        "block": "post_norm",
        "downsample": {"type": "patch_merging", "norm_last": True},
    },
    "metaformer": {
        "stem": {"type": "conv_stem", "norm": "layer_norm"},
        "mixer": "separable_conv",
        "block": {"type": "pre_norm", "residual_scale": 0.5},
        "downsample": {"type": "conv_downsample", "kernel_size": 3, "padding": 1},
        "norm": {"type": "group_norm", "bias": False},
        "activation": "star_relu",
        "head": {"num_classes": 5, "pool_first": True, "norm": "layer_norm", "hidden_ratio": 2},
    },
    "resmlp": {
        "mixer": {"type": "token_mlp", "grid": [4, 6], "hidden_dim": 5},
        "norm": "affine",
    },
    "grid_attention": {"mixer": {"type": "grid_attention", "head_dim": 4, "window_size": 3}},
    "neighborhood_attention": {
        "mixer": {"type": "neighborhood_attention", "head_dim": 4, "kernel_size": 3}
    },
    "linear_attention": {"mixer": {"type": "linear_attention", "head_dim": 4}},
    "convnext": {"mixer": "depthwise_conv", "block": "single_residual"},
    "inceptionnext": {
        "mixer": {"type": "inception_conv", "branch_ratio": 0.25},
        "block": "single_residual",
        "norm": "batch_norm",
        "head": {"norm": "none", "hidden_ratio": 2, "hidden_norm": "layer_norm"},
    },
    "maxvit": {
        "stem": {"type": "conv_stack", "strides": [2, 1], "padding": "same"},
        "mixer": ["mbconv", {"type": "grid_attention", "head_dim": 4, "window_size": 3}],
        "norm": ["batch_norm", "layer_norm"],
        "channel_mixer": ["none", "mlp"],
        "downsample": "mbconv",
    },
    "coatnet's pooling": {
        "mixer": "pooling",
        "downsample": {"type": "pool_downsample", "norm": "layer_norm", "kernel_size": 3},
    },
    "davit": {
        "mixer": {"type": "channel_attention", "head_dim": 4},
        "block": {"type": "pre_norm", "position": "conditional"},
        "downsample": {"type": "conv_downsample", "pad_rest": True},
    },
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_can_be_initialized_after_the_meta_device(network):
    spec = tiny(head=HEAD, **EVERYTHING) | NETWORKS[network]
    original = perturb(hierarch.build(spec))
    with torch.device("meta"):
        model = hierarch.build(spec)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.constant_(parameter, float("nan"))
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    images = noise(2, 3, 40, 56)
    assert model(images).isfinite().all()
    for name, parameter in hierarch.build(spec).named_parameters():
        found = model.get_parameter(name)
        if parameter.unique().numel() == 1:  # what is not drawn
            same(found, parameter)
        elif parameter.numel() > 100:
            assert found.std().item() == pytest.approx(parameter.std().item(), rel=0.5), name
    model.load_state_dict(original.state_dict())
    same(model.eval()(images), original(images))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent_and_equal(copied):
    model = perturb(hierarch.build(tiny(head=HEAD, **EVERYTHING)))
    images = noise(2, 3, 40, 56)
    expected = model(images)
    twin = copied(model)
    assert twin.spec == model.spec
    same(twin(images), expected)
    perturb(twin, seed=1)
    same(model(images), expected)
    assert not torch.equal(twin(images), expected)


# position


def test_an_absolute_position_is_not_resized_on_its_own_grid():
    position = AbsolutePosition(8, grid=(5, 7))
    x = noise(2, 5, 7, 8)
    same(position(x), x + position.table)


@pytest.mark.parametrize("grid", [(7, 5), (10, 14), (1, 1), (3, 20)], ids=str)
def test_an_absolute_position_is_resized_to_other_grids(grid):
    position = AbsolutePosition(8, grid=(5, 7))
    table = position.table.permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(table, grid, mode="bicubic", align_corners=False)
    x = noise(2, *grid, 8)
    same(position(x), x + resized.permute(0, 2, 3, 1))


# training


def test_drop_path_rises_linearly_over_all_blocks():
    model = hierarch.build(tiny(drop_path_rate=0.3))
    blocks = [block for stage in model.stages for block in stage.blocks]
    rates = [block.drop_path1.rate for block in blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.3, 7).tolist())
    assert rates == [block.drop_path2.rate for block in blocks]


def test_drop_path_drops_whole_images_and_scales_the_rest():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = 1 + noise(4000, 2, 3, 2).abs()
    ratio = (drop(x) / x).flatten(1)
    same(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5, atol=0)
    kept = ratio[:, 0] != 0
    assert kept.float().mean() == pytest.approx(0.75, abs=0.03)
    same(ratio[kept], torch.full_like(ratio[kept], 1 / 0.75), rtol=1e-5, atol=0)
    assert drop.eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_layer_scale_multiplies_both_branches():
    plain, scaled = (
        perturb(hierarch.build(tiny(**fields))) for fields in ({}, {"layer_scale": 0.1})
    )
    scaled.load_state_dict(plain.state_dict(), strict=False)
    for module in scaled.modules():
        if isinstance(module, LayerScale):
            nn.init.ones_(module.gamma)
    images = noise(1, 3, 40, 40)
    same(scaled(images), plain(images))
    block = scaled.stages[0].blocks[0]
    nn.init.zeros_(block.layer_scale1.gamma)
    nn.init.zeros_(block.layer_scale2.gamma)
    x = noise(1, 9, 9, 8)
    same(block(x), x)


def test_drop_rate_drops_in_training_only():
    torch.manual_seed(0)
    dropped = [
        {"drop_rate": 0.5, "head": HEAD},
        {"head": HEAD | {"drop_rate": 0.5}},
        {"drop_path_rate": 0.5, "head": HEAD},
    ]
    images = noise(8, 3, 16, 16)
    for fields in dropped:
        model = perturb(hierarch.build(tiny(**fields)))
        same(model(images), model(images))
        model.train()
        assert not torch.equal(model(images), model(images))
    rates = {m.p for m in hierarch.build(tiny(**dropped[0])).modules() if type(m) is nn.Dropout}
    assert rates == {0.5, 0.0}
    assert not any(m.p for m in hierarch.build(tiny()).modules() if type(m) is nn.Dropout)


def loss_and_gradients(model, images):
    model.zero_grad()
    kept = []

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(images).square().mean()
    loss.backward()
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}, sum(kept)


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_checkpointing_keeps_less_and_computes_the_same(mixer):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD, drop_path_rate=0.3))).train()
    images = noise(2, 3, 40, 40)
    results = []
    for enable in (False, True, False):
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        results.append(loss_and_gradients(model, images))
    (loss, gradients, kept), (again, recomputed, kept_less), (_, _, kept_again) = results
    same(again, loss)
    same(recomputed, gradients, rtol=1e-5, atol=1e-7)
    assert kept_less < kept / 2  # of the little that is kept without it
    assert kept_again == kept


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_gets_a_gradient(network):
    spec = tiny(head=HEAD, **EVERYTHING) | NETWORKS[network]
    for head in (None, spec["head"]):
        model = perturb(hierarch.build(spec | {"head": head}))
        out = model(noise(2, 3, 40, 40))
        total = sum(m.square().mean() for m in ([out] if head else out))
        total.backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
