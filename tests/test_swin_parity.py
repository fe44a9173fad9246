"""Swin Transformer compared with torchvision, Hugging Face and timm on the same random weights."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torchvision
from helpers import from_timm, noise, perturb, without_mask
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from transformers import SwinBackbone, SwinConfig

import hierarch


def outputs(model, images):
    with torch.no_grad():
        return model(images)


# torchvision: pads at any size, and drops a shift on an axis that one window covers

TORCHVISION = {"swin_t": "swin_tiny", "swin_s": "swin_small", "swin_b": "swin_base"}
# the last two leave maps smaller than the window, down to 2x10 and 1x1
SIZES = [(224, 224), (256, 320), (36, 300), (16, 24)]


@pytest.fixture(scope="module", params=TORCHVISION)
def torchvision_pair(request):
    theirs = perturb(getattr(torchvision.models, request.param)(), std=0.02)
    ours = hierarch.build(TORCHVISION[request.param]).eval()
    report = hierarch.load_weights(ours, theirs.state_dict())
    assert report.layout == "torchvision"
    assert len(report.loaded) == len(ours.state_dict())
    assert all(name.endswith("relative_position_index") for name in report.ignored)
    return theirs, ours


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torchvision_logits(torchvision_pair, size):
    theirs, ours = torchvision_pair
    images = noise(1, 3, *size)
    expected = outputs(theirs, images)
    torch.testing.assert_close(outputs(ours, images), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def float64_pair():
    theirs = perturb(torchvision.models.swin_t(), std=0.05).double()
    ours = hierarch.build("swin_tiny").double().eval()
    hierarch.load_weights(ours, theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torchvision_logits_in_float64(float64_pair, size):
    theirs, ours = float64_pair
    images = noise(1, 3, *size, dtype=torch.float64)
    expected = outputs(theirs, images)
    torch.testing.assert_close(outputs(ours, images), expected, atol=1e-10, rtol=0)


# without the mask of shifted windows

SMALL = {
    "patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2, 3], "num_heads": [2, 4, 8],
    "window_size": [7, 7], "num_classes": 5,
}  # fmt: skip
V2 = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}


@pytest.fixture
def zeros_for_masks(monkeypatch):
    """torchvision's masks hold 0 instead of -100."""
    original = torch.Tensor.masked_fill
    monkeypatch.setattr(
        torch.Tensor, "masked_fill", lambda x, mask, value: original(x, mask, value * 0)
    )


@pytest.mark.parametrize("options", [{}, V2], ids=["swin", "swin_v2"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torchvision_logits_without_the_mask(options, size, zeros_for_masks):
    theirs = perturb(torchvision.models.SwinTransformer(**SMALL, **options)).double()
    masked = hierarch.from_checkpoint(theirs.state_dict(), window_size=7).double().eval()
    ours = hierarch.build(without_mask(masked.spec)).double().eval()
    ours.load_state_dict(masked.state_dict())
    images = noise(2, 3, *size, dtype=torch.float64)
    expected = outputs(theirs, images)
    torch.testing.assert_close(outputs(ours, images), expected, atol=1e-10, rtol=0)
    shifted = max(size) > 7 * 4
    assert torch.allclose(outputs(masked, images), expected, atol=1e-8) == (not shifted)


# Hugging Face's SwinBackbone: a norm per output, and a shift even where one window covers the map

HUGGING_FACE = [
    (r"^stem\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^stem\.norm\.", "swin.embeddings.norm."),
    (r"^stages\.(\d+)\.norm\.", lambda m: f"hidden_states_norms.stage{int(m[1]) + 1}."),
    (r"^stages\.(\d+)\.downsample", lambda m: f"swin.encoder.layers.{int(m[1]) - 1}.downsample"),
    (r"^stages\.(\d+)\.blocks", r"swin.encoder.layers.\1.blocks"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mixer\.relative_position", ".attention.relative_position_bias.relative_position"),
    (r"\.mixer\.proj\.", ".attention.o_proj."),
]


def from_hugging_face(key, theirs):
    for pattern, name in HUGGING_FACE:
        key = re.sub(pattern, name, key)
    if ".mixer.qkv." not in key:
        return theirs[key]
    return torch.cat([theirs[key.replace("mixer.qkv", f"attention.{x}_proj")] for x in "qkv"])


@pytest.fixture(scope="module")
def hugging_face_pair():
    config = SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    theirs = perturb(SwinBackbone(config), std=0.02)
    mixer = {"type": "window_attention", "head_dim": 32, "window_size": 7}
    shifted = mixer | {"shift_size": 3, "small_map": "pad_shift"}
    ours = hierarch.build("swin_tiny", head=None, mixer=[mixer, shifted]).eval()
    state = theirs.state_dict()
    ours.load_state_dict({key: from_hugging_face(key, state) for key in ours.state_dict()})
    return theirs, ours


@pytest.mark.parametrize("size", [(225, 301), (100, 224), (32, 64), (31, 33)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=str
)
def test_hugging_face_maps(hugging_face_pair, size, dtype, tolerance):
    theirs, ours = (model.to(dtype) for model in hugging_face_pair)
    images = noise(2, 3, *size, dtype=dtype)
    expected = outputs(theirs, images).feature_maps
    maps = outputs(ours, images)
    assert len(maps) == len(expected) == 4
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("size", "equal"), [((225, 301), True), ((100, 224), False)], ids=str)
def test_the_rules_for_small_maps_part_only_there(hugging_face_pair, size, equal):
    theirs, ours = (model.float() for model in hugging_face_pair)
    unshifted = hierarch.build("swin_tiny", head=None).eval()
    unshifted.load_state_dict(ours.state_dict())
    images = noise(1, 3, *size)
    found, wanted = outputs(unshifted, images)[-1], outputs(theirs, images).feature_maps[-1]
    assert torch.allclose(found, wanted, atol=1e-4) is equal


# timm: the window shrinks to a smaller map; rolls before it pads, so sizes must divide


@pytest.mark.parametrize("size", [224, 448])
def test_timm_logits(size):
    theirs = perturb(
        timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, img_size=size),
        std=0.02,
    )
    ours = hierarch.build("swin_tiny").eval()
    ours.load_state_dict(from_timm(theirs.state_dict(), ours.state_dict()))
    images = noise(1, 3, size, size)
    expected = outputs(theirs, images)
    torch.testing.assert_close(outputs(ours, images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [224, 448])
def test_timm_logits_without_the_mask(size):
    theirs = perturb(
        timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, img_size=size),
        std=0.02,
    )
    ours = hierarch.build("ablations/swin_tiny_no_mask").eval()
    ours.load_state_dict(from_timm(theirs.state_dict(), ours.state_dict()))
    images = noise(1, 3, size, size)
    masked = outputs(theirs, images)
    for layer in theirs.layers:
        for block in layer.blocks:
            block.attn_mask = None
    expected = outputs(theirs, images)
    torch.testing.assert_close(outputs(ours, images), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(masked, expected, atol=1e-3)


def centered(table, window):
    """The bias table of a smaller window: the center of the table of an 8x8 window."""
    h, w = window
    whole = torch.zeros(15, 15, table.shape[-1], dtype=table.dtype)
    whole[8 - h : 7 + h, 8 - w : 7 + w] = table.view(2 * h - 1, 2 * w - 1, -1)
    return whole.flatten(0, 1)


@pytest.mark.parametrize("size", [(64, 128), (64, 64), (32, 128), (128, 16)], ids=str)
def test_clamp_is_timms_rule_for_small_maps(size):
    theirs = perturb(
        timm.models.SwinTransformer(
            img_size=size, window_size=8, embed_dim=16, depths=(2, 2, 3), num_heads=(2, 4, 8)
        )
    ).double()
    mixer = {"type": "window_attention", "head_dim": 8, "window_size": 8, "small_map": "clamp"}
    stages = [{"dim": dim, "depth": depth} for dim, depth in ((16, 2), (32, 2), (64, 3))]
    ours = hierarch.build(
        {"stages": stages, "mixer": [mixer, mixer | {"shift_size": 4}], "head": {}}
    )
    weights = from_timm(theirs.state_dict(), ours.state_dict())
    for i, layer in enumerate(theirs.layers):
        for j, block in enumerate(layer.blocks):
            key = f"stages.{i}.blocks.{j}.mixer.relative_position_bias_table"
            weights[key] = centered(weights[key], block.window_size)
    ours.double().eval().load_state_dict(weights)
    images = noise(2, 3, *size, dtype=torch.float64)
    expected = outputs(theirs, images)
    torch.testing.assert_close(outputs(ours, images), expected, atol=1e-10, rtol=0)
