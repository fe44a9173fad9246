"""Every family compared with timm's: parameters, logits, and weights in both directions.

Small networks are compared in float64, where a wrong epsilon shows: in float32 it does not.
"""

import itertools
import re

import pytest
import timm
import torch
from helpers import noise, perturb
from oracles import Oracle, difference, oracle, relative, small
from torch import nn
from transformers import PoolFormerConfig, PoolFormerForImageClassification

import hierarch
from hierarch.spec.registry import entries

CONVOLUTIONAL = ("metaformer", "convnext", "inception_next", "pvt_v2", "focalnet", "davit")
FOLDERS = ("swin_v2", *CONVOLUTIONAL, "twins", "maxvit", "vit", "mlp")
PRESETS = [name for name in hierarch.presets() if name.startswith(FOLDERS)]
SWINS = [name for name in hierarch.presets() if "/" not in name and oracle(name)]
CONVOLUTIONS = [name for name in PRESETS if name.startswith(CONVOLUTIONAL)]
FULL_SIZE = [
    "swin_v2/swin_v2_tiny_window8_256",
    *(f"metaformer/{family}_s12" for family in ("identityformer", "poolformer", "poolformer_v2")),
    *("metaformer/convformer_s18", "metaformer/caformer_s18"),
    *("convnext/convnext_tiny", "convnext/convnext_v2_atto", "pvt_v2/pvt_v2_b0"),
    "inception_next/inception_next_atto",
    *("twins/twins_svt_small", "focalnet/focalnet_tiny_srf", "davit/davit_tiny"),
    "maxvit/maxvit_tiny",
    *("vit/vit_tiny_patch16", "vit/dinov3_small_patch16", "vit/parallel_vit_wee_patch16"),
    *("mlp/mlp_mixer_base_patch16", "mlp/resmlp_s12"),
]
EXACT = 1e-12


def one_per_family(names):
    """The first preset of each family; presets that differ only in widths and depths are one."""
    return [next(group) for _, group in itertools.groupby(names, key=lambda n: n.split("_")[0])]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def built_small(preset, size, **fields):
    """Our small network, with noise on every weight, and timm's."""
    spec, arguments = small(preset)
    if "swin" in preset:
        arguments["img_size"] = size
    ours = perturb(hierarch.build(spec, **fields)).double()
    return ours, oracle(preset).build(**arguments).double()


def images(height, width=None, **kind):
    return noise(2, 3, height, width or height, dtype=torch.float64, **kind)


def test_every_family_has_a_network_of_timms():
    assert [name for name in PRESETS if oracle(name) is None] == []
    assert len(PRESETS) >= 68
    assert len(SWINS) == 7


@pytest.mark.parametrize("preset", PRESETS)
def test_the_number_of_parameters_is_timms(preset):
    with torch.device("meta"):
        assert count(hierarch.build(preset)) == count(oracle(preset).build())


@pytest.mark.parametrize("preset", FULL_SIZE)
def test_the_claim_is_the_count_at_the_published_size(preset):
    spec = hierarch.load(preset)
    [cost] = hierarch.measure(spec, [spec.input_size]).sizes
    assert cost.macs == cost.claimed_macs


@pytest.mark.parametrize("preset", SWINS + PRESETS)
def test_a_small_network_of_every_preset_is_timms(preset):
    size = hierarch.load(preset).input_size
    ours, theirs = built_small(preset, size)
    assert difference(ours, theirs, images(size)) < EXACT
    # and back: what timm has is what we had
    again = hierarch.build(ours.spec).double()
    report = hierarch.load_weights(again, theirs.state_dict())
    assert report.layout == "timm"
    assert report.initialized == report.resampled == ()
    state = ours.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in again.state_dict().items())


@pytest.mark.parametrize("preset", FULL_SIZE)
def test_a_published_network_at_its_own_size_is_timms(preset):
    size = hierarch.load(preset).input_size
    theirs = oracle(preset).build()
    ours = perturb(hierarch.build(preset))
    assert difference(ours, theirs, images(size).float()[:1]) < 2e-5


@pytest.mark.parametrize("preset", one_per_family(CONVOLUTIONS))
@pytest.mark.parametrize("size", [(97, 131), (65, 48), (33, 200)])
def test_convolutions_take_any_size_as_timm_does(preset, size):
    ours, theirs = built_small(preset, None)
    assert difference(ours, theirs, images(*size)) < EXACT


@pytest.mark.parametrize("preset", one_per_family(PRESETS))
def test_a_wrong_epsilon_or_activation_would_show(preset):
    spec = hierarch.load(preset)
    size = spec.input_size
    ours, theirs = built_small(preset, size, activation="relu")
    if "star_relu" in str(spec.activation):
        with pytest.raises(RuntimeError, match="act"):
            difference(ours, theirs, images(size))
    else:
        assert difference(ours, theirs, images(size)) > 1e-4
    norms = entries(spec.norm)
    if "eps" in type(norms[0]).model_fields:
        wrong = [norm.model_copy(update={"eps": 1e-4}) for norm in norms]
        ours, theirs = built_small(preset, size, norm=wrong)
        assert difference(ours, theirs, images(size)) > 1e3 * EXACT


# Swin V2: windows and images of other sizes


@pytest.mark.parametrize("size", [128, 384, 512])
def test_swin_v2_at_other_sizes(size):
    ours, theirs = built_small("swin_v2/swin_v2_tiny_window8_256", size)
    assert difference(ours, theirs, images(size)) < EXACT


@pytest.mark.parametrize("size", [(256, 512), (128, 256)])
def test_swin_v2_on_rectangles_under_timms_rule_for_small_maps(size):
    preset = "swin_v2/swin_v2_tiny_window8_256"
    spec, _ = small(preset)
    # timm clamps each axis by itself; the preset does as Microsoft's code, which is for squares
    clamped = [mixer.model_copy(update={"small_map": "clamp"}) for mixer in spec.mixer]
    ours, theirs = built_small(preset, size, mixer=tuple(clamped))
    assert difference(ours, theirs, images(*size)) < EXACT


def test_the_pretrained_window_changes_the_output_of_swin_v2():
    preset = "swin_v2/swin_v2_base_window12to16_192to256"
    ours, theirs = built_small(preset, 256)
    assert difference(ours, theirs, images(256)) < EXACT
    _, arguments = small(preset)
    plain = (
        oracle(preset).build(**arguments, img_size=256, pretrained_window_sizes=(0,) * 4).double()
    )
    assert difference(ours, plain, images(256)) > 1e-4


# what has no preset, and needs none


def test_swin_s3_is_swin_with_a_window_a_stage():
    def windows(size):
        regular = {"type": "window_attention", "head_dim": 32, "window_size": size}
        return [regular, regular | {"shift_size": size // 2}]

    spec, _ = small("swin_tiny")
    sizes = (7, 7, 14, 7)
    stages = [s.to_data() | {"mixer": windows(n)} for s, n in zip(spec.stages, sizes, strict=True)]
    ours = perturb(hierarch.build(spec.to_data() | {"stages": stages})).double()
    arguments = {"embed_dim": 32, "num_heads": (1, 2, 4, 8), "depths": (2,) * 4, "num_classes": 10}
    theirs = Oracle("swin_s3_tiny_224").build(**arguments, img_size=224).double()
    assert difference(ours, theirs, images(224)) < EXACT


@torch.no_grad()
def test_the_authors_poolformer_norms_before_the_mean_as_transformers_does():
    def renamed(name):
        name = re.sub(r"^poolformer\.encoder\.patch_embeddings\.0\.projection", "stem.proj", name)
        name = re.sub(
            r"^poolformer\.encoder\.patch_embeddings\.(\d)\.projection",
            r"stages.\1.downsample.conv",
            name,
        )
        name = re.sub(r"^poolformer\.encoder\.block\.(\d)\.(\d)", r"stages.\1.blocks.\2", name)
        name = re.sub(r"\.(before|after)_norm", lambda m: f".norm{1 + (m[1] == 'after')}", name)
        name = re.sub(r"\.layer_scale_(\d)$", r".layer_scale\1.gamma", name)
        name = re.sub(r"\.output\.conv(\d)", r".mlp.fc\1", name)
        return re.sub(r"^classifier", "head.fc", name)

    shape = {"depths": [2] * 4, "hidden_sizes": [8, 16, 32, 64], "num_labels": 10}
    theirs = perturb(PoolFormerForImageClassification(PoolFormerConfig(**shape))).double()
    spec, arguments = small("metaformer/poolformer_s12")
    ours = hierarch.build(spec, head={"num_classes": 10}).double().eval()
    state = {renamed(name): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict({n: t.view_as(ours.state_dict()[n]) for n, t in state.items()})
    wanted = theirs(images(97, 131)).logits
    assert relative(ours(images(97, 131)), wanted) < EXACT
    # timm's norms after the mean: another function of the same weights
    after = oracle("metaformer/poolformer_s12").build(**arguments).double()
    assert difference(ours, after, images(97, 131)) > 1e-3


def test_a_class_token_adds_two_vectors_of_parameters():
    theirs = timm.create_model("vit_tiny_patch16_224")
    assert count(theirs) - count(hierarch.build("vit/vit_tiny_patch16")) == 2 * 192
    assert isinstance(theirs.cls_token, nn.Parameter)
    with pytest.raises(hierarch.WeightsError, match=r"left over 2 \(cls_token, pos_embed\)"):
        hierarch.load_weights(hierarch.build("vit/vit_tiny_patch16"), theirs.state_dict())
