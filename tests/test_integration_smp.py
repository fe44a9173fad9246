"""Encoders in segmentation_models_pytorch."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest
import segmentation_models_pytorch as smp
import torch
from helpers import assert_same, noise, perturb, tiny

import hierarch
from hierarch.errors import MissingPackageError
from hierarch.integrations.segmentation_models import Encoder, register

STAGES = [{"dim": 8 * (i + 1), "depth": 1} for i in range(4)]
SPEC = tiny(name="four", stages=STAGES)
TWO = tiny(name="two", stem={"type": "patch_embed", "patch_size": 2}, stages=[STAGES[0], *STAGES])
"""Strides from 2."""
IMAGES = noise(2, 3, 64, 64)


@pytest.fixture(scope="module", autouse=True)
def registered():
    for spec in (SPEC, TWO):
        register(spec)


def unet(name="hierarch-four", depth=5, **options):
    channels = [16] * depth
    return smp.Unet(
        name, depth, encoder_weights=None, decoder_channels=channels, classes=2, **options
    )


@pytest.mark.parametrize("depth", [5, 4, 3])
@pytest.mark.parametrize("spec", [SPEC, TWO], ids=["4", "2"])
def test_an_encoder_gives_the_maps_of_the_plain_network(spec, depth):
    encoder = smp.encoders.get_encoder(f"hierarch-{spec['name']}", depth=depth).eval()
    stages = range(len(encoder.model.stages))
    plain = perturb(hierarch.build(spec, out_indices=tuple(stages)))
    encoder.model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        found, wanted = encoder(IMAGES), plain(IMAGES)
    assert [x.shape[1] for x in found] == encoder.out_channels
    assert [64 // x.shape[2] for x in found] == [2**i for i in range(depth + 1)]
    missing = depth - len(wanted)
    assert missing == (1 if spec is SPEC else 0)
    assert torch.equal(found[0], IMAGES)
    assert all(x.numel() == 0 for x in found[1 : 1 + missing])
    assert_same(found[1 + missing :], list(wanted))


@pytest.mark.parametrize("depth", [5, 4, 3])
def test_a_unet_is_trained_saved_and_loaded(depth, tmp_path):
    model = unet(depth=depth).train()
    out = model(IMAGES)
    assert out.shape == (2, 2, 64, 64)
    out.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    model.save_pretrained(tmp_path)
    again = smp.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert_same(again(IMAGES), model.eval()(IMAGES))


@pytest.mark.parametrize(
    ("decoder", "name", "options"),
    [
        (smp.FPN, "hierarch-four", {}),
        (smp.FPN, "hierarch-two", {"encoder_depth": 4, "upsampling": 2}),
        (smp.UPerNet, "hierarch-four", {"encoder_depth": 4}),
        (smp.DeepLabV3Plus, "hierarch-four", {"encoder_depth": 4, "encoder_output_stride": 16}),
    ],
)
def test_other_decoders(decoder, name, options):
    model = decoder(name, encoder_weights=None, classes=2, **options).train()
    out = model(IMAGES)
    assert out.shape == (2, 2, 64, 64)
    out.square().sum().backward()
    assert model.encoder.model.stem.proj.weight.grad.abs().max() > 0


def test_images_of_other_sizes_and_channels():
    model = unet(in_channels=5).eval()
    assert model.encoder.out_channels == [5, 0, 8, 16, 24, 32]
    with torch.no_grad():
        assert model(noise(1, 5, 65, 71)).shape == (1, 2, 65, 71)
    gray = hierarch.load(SPEC | {"stem": {"type": "patch_embed", "in_chans": 1}})
    assert unet(register(gray, "gray")).encoder.out_channels[0] == 3
    assert unet("gray", in_channels=1)(noise(1, 1, 64, 64)).shape == (1, 2, 64, 64)


def test_stages_are_frozen():
    model = unet()
    model.encoder.model.freeze(stages=1)
    model.train()
    assert not model.encoder.model.stages[0].training
    assert model.encoder.model.stages[1].training


def test_presets_are_registered():
    names = smp.encoders.get_encoder_names()
    assert {f"hierarch-{name}" for name in hierarch.presets(axes=2)} < {*names}
    with torch.device("meta"):
        model = unet("hierarch-swin_v2/swin_v2_tiny_window8_256")
    assert model.encoder.out_channels == [3, 0, 96, 192, 384, 768]
    assert model.encoder.model.spec == hierarch.load("swin_v2/swin_v2_tiny_window8_256").model_copy(
        update={"head": None, "out_indices": (0, 1, 2, 3)}
    )


@pytest.mark.parametrize(
    ("spec", "depth", "own"),
    [
        (SPEC | {"stages": STAGES[:3]}, 5, "4, 8, 16"),
        (SPEC, 1, "4, 8, 16, 32"),
        (SPEC | {"stem": {"type": "patch_embed", "patch_size": 6}}, 5, "6, 12, 24, 48"),
        (
            SPEC | {"stem": {"type": "patch_embed", "patch_size": [4, 2]}},
            4,
            "4x2, 8x4, 16x8, 32x16",
        ),
        ("vit/vit_tiny_patch16", 5, "16"),
    ],
)
def test_strides_that_do_not_double_to_the_last_map_are_refused(spec, depth, own):
    name = register(spec, "other")
    with pytest.raises(ValueError, match=f"encoder_depth={depth} needs stages .* are {own}$"):
        unet(name, depth)


def test_an_output_stride_that_needs_dilation_is_refused():
    message = "encoder_output_stride=8 would need dilated stages.*; give encoder_depth=3"
    with pytest.raises(ValueError, match=message):
        smp.DeepLabV3("hierarch-four", encoder_weights=None)
    with pytest.raises(ValueError, match="encoder_depth=6 should be from 1 to 5"):
        Encoder(SPEC, depth=6)


def test_there_are_no_weights_to_download():
    with pytest.raises(KeyError, match="Wrong pretrained weights `imagenet`"):
        smp.Unet("hierarch-four")


def test_without_the_package_there_is_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "hierarch.integrations.segmentation_models")
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(
        MissingPackageError,
        match=r"segmentation_models_pytorch: pip install 'hierarch-vision\[segmentation\]'$",
    ):
        import_module("hierarch.integrations.segmentation_models")
