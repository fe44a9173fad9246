"""Mixers that timm has, too: equal in float64, with weights carried over."""

from __future__ import annotations

import pytest
import torch
from helpers import noise, perturb
from timm.models.davit import ChannelAttention as DavitAttention
from timm.models.davit import ChannelAttentionV2 as FlorenceAttention
from timm.models.focalnet import FocalModulation as TimmFocalModulation
from timm.models.inception_next import InceptionDWConv2d
from timm.models.xcit import XCA

import hierarch
from hierarch import MixerSpec

DIM = 24
GRIDS = [(1, 1), (2, 9), (7, 7), (13, 6)]
on_grids = pytest.mark.parametrize("grid", GRIDS, ids=str)


def mixer(fields: dict[str, object]) -> MixerSpec:
    """The spec of a mixer, at the width of these tests."""
    return hierarch.load({"stages": [{"dim": DIM, "depth": 1}], "mixer": fields}).mixer[0]


def carried(theirs, ours, renamed):
    """Our module with their weights; 1x1 convolutions are linear layers."""
    state = {renamed(name): weight for name, weight in theirs.state_dict().items()}
    own = ours.state_dict()
    ours.load_state_dict({name: weight.reshape(own[name].shape) for name, weight in state.items()})
    return ours


def assert_equal(ours, theirs, x):
    """`theirs` maps (B, C, H, W) to the same."""
    with torch.no_grad():
        expected = theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-10)


# focal modulation


@on_grids
@pytest.mark.parametrize("normalize_modulator", [False, True])
@pytest.mark.parametrize("norm", [None, {"type": "layer_norm", "eps": 1e-6}], ids=["plain", "norm"])
@pytest.mark.parametrize(("window", "level"), [(3, 2), (5, 3), (3, 4), (9, 1)])
def test_focal_modulation_is_timms(window, level, norm, normalize_modulator, grid):
    options = {"focal_window": window, "focal_level": level}
    options["normalize_modulator"] = normalize_modulator
    theirs = TimmFocalModulation(DIM, **options, use_post_norm=norm is not None)
    theirs = perturb(theirs.double(), std=0.3)
    spec = mixer({"type": "focal_modulation", **options, "norm": norm})
    assert spec.params(dim=DIM) == sum(p.numel() for p in theirs.parameters())

    def renamed(name):  # each level is a Sequential of a convolution and an activation there
        return name.replace(".0.weight", ".conv.weight")

    ours = carried(theirs, spec.build(DIM).double().eval(), renamed)
    assert_equal(ours, theirs, noise(2, *grid, DIM, dtype=torch.float64))


# channel attention


class OverTokens(torch.nn.Module):
    """timm's attention among channels, (B, N, C) -> (B, N, C), on (B, C, H, W)."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        return self.attention(x.flatten(2).mT).mT.unflatten(-1, x.shape[2:])


def queries_last(name, weight):
    """DaViT's queries are what others call values: its k, v, q are our q, k, v."""
    if not name.startswith("qkv"):
        return weight
    q, k, v = weight.chunk(3)
    return torch.cat([k, v, q])


@on_grids
@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("heads", [1, 3, 8])
@pytest.mark.parametrize(
    ("scale", "kind"),
    [("head_dim", DavitAttention), ("tokens", FlorenceAttention), ("cosine", XCA)],
)
def test_channel_attention_is_timms(kind, scale, heads, qkv_bias, grid):
    theirs = perturb(kind(DIM, num_heads=heads, qkv_bias=qkv_bias).double(), std=0.3)
    options = {"num_heads": heads, "qkv_bias": qkv_bias, "scale": scale}
    spec = mixer({"type": "channel_attention", **options})
    assert spec.params(dim=DIM) == sum(p.numel() for p in theirs.parameters())
    ours = spec.build(DIM).double().eval()
    state = theirs.state_dict()
    if kind is DavitAttention:
        state = {name: queries_last(name, weight) for name, weight in state.items()}
    ours.load_state_dict(state)
    assert_equal(ours, OverTokens(theirs), noise(2, *grid, DIM, dtype=torch.float64))


# inception convolution


@on_grids
@pytest.mark.parametrize(("square", "band", "ratio"), [(3, 11, 0.125), (5, 9, 0.25), (1, 3, 0.3)])
def test_inception_conv_is_timms(square, band, ratio, grid):
    options = {"square_kernel_size": square, "band_kernel_size": band, "branch_ratio": ratio}
    theirs = perturb(InceptionDWConv2d(DIM, **options).double(), std=0.3)
    spec = mixer({"type": "inception_conv", **options})
    assert spec.params(dim=DIM) == sum(p.numel() for p in theirs.parameters())
    ours = carried(
        theirs, spec.build(DIM).double().eval(), lambda name: name.replace(".", ".conv.")
    )
    assert_equal(ours, theirs, noise(2, *grid, DIM, dtype=torch.float64))
