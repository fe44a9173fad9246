"""NAT and DiNAT: the published sizes, and the weights of transformers and of the authors.

NATTEN's kernels need a GPU to be built for. In transformers' network their place is taken here by
their definition, which `test_neighborhoods_start_where_nattens_do` states as they do.
"""

from __future__ import annotations

import pytest
import torch
from helpers import noise, perturb
from test_attention_mixers import natten_start
from transformers import DinatBackbone, DinatConfig, DinatForImageClassification
from transformers.models.dinat import modeling_dinat

import hierarch
from hierarch.complexity import measure

SIZES = {  # parameters in millions and GMACs at 224, as the papers give them
    "nat_mini": (20, 2.7),
    "nat_tiny": (28, 4.3),
    "nat_small": (51, 7.8),
    "nat_base": (90, 13.7),
    "dinat_mini": (20, 2.7),
    "dinat_tiny": (28, 4.3),
    "dinat_small": (51, 7.8),
    "dinat_base": (90, 13.7),
}


def neighbors(length, kernel_size, dilation):
    """(length, K), by NATTEN's own words."""
    first = [natten_start(i, length, kernel_size, dilation) for i in range(length)]
    return torch.tensor(first)[:, None] + dilation * torch.arange(kernel_size)


def heads_first(x):
    """transformers' (B, W, H, heads, d) -> (B, heads, H, W, d), which NATTEN takes."""
    return x.permute(0, 3, 2, 1, 4)


def gathered(x, kernel_size, dilation):
    """(B, heads, H, W, d) -> (B, heads, H, W, K * K, d): the neighbors of each position."""
    rows, columns = (neighbors(n, kernel_size, dilation) for n in x.shape[2:4])
    return x[:, :, rows[:, None, :, None], columns[None, :, None, :]].flatten(4, 5)


def logits(query, key, bias, kernel_size, dilation):
    query, key = heads_first(query), heads_first(key)
    found = (query[..., None, :] * gathered(key, kernel_size, dilation)).sum(-1)
    steps = [
        (neighbors(n, kernel_size, dilation) - torch.arange(n)[:, None]) // dilation
        for n in query.shape[2:4]
    ]
    rows, columns = (axis + kernel_size - 1 for axis in steps)
    return found + bias[:, rows[:, None, :, None], columns[None, :, None, :]].flatten(3)


def averaged(attended, value, kernel_size, dilation):
    return (attended[..., None] * gathered(heads_first(value), kernel_size, dilation)).sum(-2)


@pytest.fixture
def natten(monkeypatch):
    monkeypatch.setattr(modeling_dinat, "requires_backends", lambda *_: None)
    monkeypatch.setattr(modeling_dinat, "natten2dqkrpb", logits)
    monkeypatch.setattr(modeling_dinat, "natten2dav", averaged)


def config(**fields):
    return DinatConfig(
        embed_dim=16,
        depths=[2, 3],
        num_heads=[2, 4],
        kernel_size=3,
        dilations=[[1, 4], [1, 2, 1]],
        mlp_ratio=2.0,
        num_labels=5,
        **fields,
    )


def spec(**fields):
    return {
        "stem": {"type": "conv_stack", "norm": "layer_norm"},
        "downsample": {
            "type": "conv_downsample",
            "kernel_size": 3,
            "padding": 1,
            "bias": False,
            "out_norm": "layer_norm",
        },
        "mlp_ratio": 2,
        "stages": [
            {"dim": dim, "depth": depth, "mixer": [mixer(1), mixer(dilation)]}
            for dim, depth, dilation in [(16, 2, 4), (32, 3, 2)]
        ],
        **fields,
    }


def mixer(dilation):
    own = {"kernel_size": 3, "dilation": dilation}
    return {"type": "neighborhood_attention", "head_dim": 8, **own}


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_classifiers_are_transformers(natten, scale):
    theirs = perturb(DinatForImageClassification(config(layer_scale_init_value=scale))).double()
    head = {"head": {"num_classes": 5}, "layer_scale": scale or None}
    ours = hierarch.build(spec(**head)).double().eval()
    report = hierarch.load_weights(ours, theirs.state_dict())
    assert (report.layout, report.network) == ("huggingface", "dinat")
    for size in [(64, 64), (97, 66)]:
        images = noise(2, 3, *size).double()
        with torch.no_grad():
            found, wanted = ours(images), theirs(images).logits
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    written = hierarch.export_weights(ours, layout="huggingface")
    theirs.load_state_dict(written, strict=True)
    assert all(torch.equal(written[name], t) for name, t in theirs.state_dict().items())


def test_feature_maps_are_transformers(natten):
    theirs = perturb(DinatBackbone(config(out_features=["stage1", "stage2"]))).double()
    ours = hierarch.build(spec()).double().eval()
    hierarch.load_weights(ours, theirs.state_dict())
    images = noise(1, 3, 70, 65).double()
    with torch.no_grad():
        maps = theirs(images).feature_maps
        for found, wanted in zip(ours(images), maps, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_the_authors_names_are_read_and_written():
    model = perturb(hierarch.build(spec(head={"num_classes": 5}, layer_scale=1e-5)))
    written = hierarch.export_weights(model, layout="natten")
    assert {
        *("patch_embed.proj.0.weight", "patch_embed.proj.1.bias", "patch_embed.norm.weight"),
        *("levels.0.blocks.1.attn.qkv.weight", "levels.0.blocks.1.attn.proj.bias"),
        *("levels.0.downsample.reduction.weight", "levels.0.downsample.norm.bias"),
        *("levels.1.blocks.2.gamma1", "levels.1.blocks.2.gamma2", "norm.weight", "head.weight"),
        *("levels.1.blocks.0.norm1.weight", "levels.1.blocks.0.mlp.fc1.bias"),
    } < written.keys()
    assert written["levels.0.blocks.0.attn.rpb"].shape == (2, 5, 5)
    again = hierarch.build(spec(head={"num_classes": 5}, layer_scale=1e-5))
    assert hierarch.load_weights(again, written).layout == "natten"
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_costs_are_the_papers(name):
    millions, giga = SIZES[name]
    report = measure(f"nat/{name}", [224])
    assert round(report.params / 1e6) == millions
    assert round(report.sizes[0].macs / 1e9, 1) == giga
    assert report.verdict == "linear"
