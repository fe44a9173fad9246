"""`hierarch.integrations.monai`: Swin UNETR with encoders of ours, and MONAI's weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers import noise, perturb
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import SwinTransformer

import hierarch
from hierarch import engine
from hierarch.integrations.monai import Encoder, swin_unetr

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW = [3, 3, 3]
SMALL = {
    "name": "small",
    "input_size": [32, 32, 32],
    "stem": {"type": "patch_embed", "patch_size": [2, 2, 2], "in_chans": 2, "norm": None},
    "mixer": [
        {"type": "window_attention", "head_dim": 4, "window_size": WINDOW, **shift}
        | {"small_map": "clamp_first"}
        for shift in ({}, {"shift_size": [1, 1, 1]})
    ],
    "downsample": {"type": "patch_merging", "merge_size": [2, 2, 2]},
    "stages": [*({"dim": 12 * 2**i, "depth": 2} for i in range(4)), {"dim": 192, "depth": 0}],
}
SIZES = [(32, 32, 32), (64, 32, 32), (32, 96, 64)]
"""The last map of the first has one token."""


def encoder(**fields):
    return perturb(
        SwinTransformer(
            in_chans=2,
            embed_dim=12,
            window_size=WINDOW,
            patch_size=[2, 2, 2],
            depths=[2, 2, 2, 2],
            num_heads=[3, 6, 12, 24],
            **fields,
        )
    ).double()


@pytest.fixture(scope="module")
def theirs():
    return encoder()


@pytest.mark.parametrize("size", [*SIZES, (33, 47, 35)])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_maps_are_monais(theirs, size, normalize):
    ours = Encoder(SMALL).eval().double()
    report = hierarch.load_weights(ours.model, theirs.state_dict())
    assert (report.layout, report.network) == ("monai", "swin_unetr")
    volumes = noise(2, 2, *size).double()
    with torch.no_grad():
        wanted, found = theirs(volumes, normalize), ours(volumes, normalize)
        with engine.disabled():
            defined = ours(volumes, normalize)
    for maps in (found, defined, ours(volumes, normalize)):
        for one, other in zip(maps, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_norm_of_the_stem_is_read_too():
    theirs = encoder(patch_norm=True)
    ours = hierarch.from_checkpoint(theirs.state_dict()).double()
    volumes = noise(1, 2, 32, 32, 32).double()
    with torch.no_grad():
        [*_, wanted] = theirs(volumes, False)
        [*_, found] = ours(volumes)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_a_checkpoint_says_its_spec_and_is_written_back(theirs):
    ours = hierarch.from_checkpoint(theirs.state_dict())
    assert [(s.dim, s.depth) for s in ours.spec.stages] == [
        (12, 2),
        (24, 2),
        (48, 2),
        (96, 2),
        (192, 0),
    ]
    assert ours.spec.downsample.merge_size == (2, 2, 2)
    mixers = ours.spec.plan()[0].mixers
    assert [(m.window, m.shift, m.small_map) for m in mixers] == [
        ((3, 3, 3), (0, 0, 0), "clamp_first"),
        ((3, 3, 3), (1, 1, 1), "clamp_first"),
    ]
    written = hierarch.export_weights(ours, layout="monai")
    assert written.keys() == theirs.state_dict().keys()
    assert all(torch.equal(written[name], t) for name, t in theirs.state_dict().items())
    encoder().load_state_dict(written, strict=True)


def test_the_files_of_self_supervised_training_are_read(theirs):
    """As `SwinUNETR.load_from` takes them: of a data-parallel wrapper, with other names of MLPs."""
    state = {
        "module." + name.replace("mlp.linear", "mlp.fc"): tensor
        for name, tensor in theirs.state_dict().items()
    }
    ours = hierarch.build(SMALL, output_norm=False)
    hierarch.load_weights(ours, {"state_dict": state})
    wanted = theirs.state_dict()["layers3.0.blocks.1.mlp.linear2.weight"]
    assert torch.equal(ours.stages[2].blocks[1].mlp.fc2.weight, wanted.float())


@pytest.mark.parametrize("shape", [(), (0,), (7,), (192, 95)])
def test_a_damaged_merging_is_refused(theirs, shape):
    state = theirs.state_dict() | {"layers1.0.downsample.reduction.weight": torch.zeros(shape)}
    model = hierarch.build(SMALL, output_norm=False)
    for read in (hierarch.from_checkpoint, partial(hierarch.load_weights, model)):
        with pytest.raises(hierarch.WeightsError, match=r"downsample\.reduction\.weight"):
            read(state)


def test_a_swin_unetr_gives_monais_logits():
    like = {"in_channels": 2, "out_channels": 3, "norm_name": "batch"}
    theirs = perturb(SwinUNETR(**like, feature_size=12, window_size=3)).double()
    ours = swin_unetr(SMALL, out_channels=3, norm_name="batch").eval().double()
    hierarch.load_weights(ours.swinViT.model, theirs.state_dict())
    decoder = {k: v for k, v in theirs.state_dict().items() if not k.startswith("swinViT.")}
    assert not ours.load_state_dict(decoder, strict=False).unexpected_keys
    volumes = noise(1, 2, 64, 32, 32).double()
    with torch.no_grad():
        torch.testing.assert_close(ours(volumes), theirs(volumes), rtol=1e-10, atol=1e-10)


def test_the_published_encoder_has_monais_parameters_and_its_claim_is_the_count():
    theirs = SwinUNETR(in_channels=1, out_channels=14, feature_size=48).swinViT
    with torch.device("meta"):
        ours = hierarch.build("volume/swin_unetr")
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    report = hierarch.measure("volume/swin_unetr", [(96, 96, 96), (192, 192, 192), (33, 50, 71)])
    assert report.verdict == "linear"
    assert all(size.macs == size.claimed_macs for size in report.sizes)


@pytest.mark.parametrize("mixer", ["window_mlp", "identity"])
def test_another_mixer_trains(mixer):
    fields = {} if mixer == "identity" else {"head_dim": 4, "window_size": WINDOW}
    unet = swin_unetr(SMALL | {"mixer": {"type": mixer} | fields}, out_channels=2)
    unet.swinViT.model.set_grad_checkpointing()
    unet.train()(noise(1, 2, 64, 32, 32)).square().mean().backward()
    assert all(p.grad is not None for p in unet.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": [{"dim": 12, "depth": 1}]}, "strides 2, 4, 8, 16, 32 .* it has 2x2x2"),
        (
            {"stages": [*({"dim": 12, "depth": 2} for _ in range(5))]},
            r"widths that double; it has \[12, 12, 12, 12, 12\]",
        ),
    ],
)
def test_another_encoder_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        swin_unetr(SMALL | fields, out_channels=2)


def test_images_are_refused():
    with pytest.raises(ValueError, match="it has 4x4, 8x8, 16x16, 32x32"):
        swin_unetr("swin_tiny", out_channels=2)
