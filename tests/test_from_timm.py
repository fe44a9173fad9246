"""The spec and the weights of timm's networks, and why there is none for some."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from helpers import noise, perturb
from oracles import Oracle, oracle, small
from timm.layers import GluMlp, SwiGLU
from timm.models import (
    ConvNeXt,
    DaVit,
    FocalNet,
    MlpMixer,
    SwinTransformer,
    SwinTransformerV2,
    VisionTransformer,
)
from torch import nn

import hierarch
from hierarch.errors import PeerError

SWIN = {"img_size": 32, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
SWIN |= {"num_classes": 5}
SHALLOW = {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "num_classes": 5}
FOCAL = {"embed_dim": 8, "depths": (1, 2), "focal_levels": (2, 1), "focal_windows": (3, 5)}
FOCAL |= {"num_classes": 5}
DAVIT = {"embed_dims": (16, 32), "num_heads": (2, 2), "depths": (1, 2), "num_classes": 5}
MAXVIT = {"img_size": 64, "embed_dim": (32, 64), "depths": (1, 2), "num_classes": 5}
MAXVIT |= {"stem_width": (8, 16), "head_hidden_size": 32}
FLAT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_classes": 5}
VIT = FLAT | {"depth": 2, "num_heads": 2, "class_token": False, "global_pool": "avg"}


def swin(**arguments):
    return SwinTransformer(**SWIN | arguments)


NETWORKS = {
    "Swin": lambda: swin(depths=(2, 3), drop_path_rate=0.2, drop_rate=0.1),
    "Swin, rectangular windows": lambda: swin(img_size=(32, 64), window_size=(2, 4)),
    "Swin, a window per stage": lambda: swin(
        img_size=64, window_size=[(4, 4), (8, 8)], in_chans=1, qkv_bias=False, num_classes=0
    ),
    "Swin, an MLP of 15 / 8": lambda: swin(mlp_ratio=15 / 8, norm_layer=nn.LayerNorm),
    "Swin V2": lambda: SwinTransformerV2(
        **SWIN | {"window_size": 8, "pretrained_window_sizes": (4, 2)}
    ),
    "PoolFormer": lambda: oracle("poolformer_s12").build(**SHALLOW),
    "PoolFormerV2": lambda: oracle("poolformer_v2_s12").build(**SHALLOW),
    "IdentityFormer": lambda: oracle("identityformer_s12").build(**SHALLOW),
    "ConvFormer": lambda: oracle("convformer_s18").build(**SHALLOW),
    "CAFormer": lambda: oracle("caformer_s18").build(**SHALLOW | {"dims": (8, 16, 32, 64)}),
    "ConvNeXt": lambda: ConvNeXt(**SHALLOW, ls_init_value=0.1, norm_eps=1e-3, kernel_sizes=5),
    "ConvNeXt of convolutions": lambda: Oracle("convnext_atto").build(**SHALLOW),
    "ConvNeXt, norm first": lambda: ConvNeXt(**SHALLOW, head_norm_first=True, patch_size=2),
    "FocalNet, norm last": lambda: FocalNet(
        **FOCAL,
        use_post_norm=True,
        layerscale_value=0.1,
        use_overlap_down=True,
        normalize_modulator=True,
        use_post_norm_in_modulation=True,
    ),
    "DaViT": lambda: oracle("davit_tiny").build(**DAVIT),
    "DaViT, norm first": lambda: DaVit(
        **DAVIT, head_norm_first=True, window_size=4, down_kernel_size=3, qkv_bias=False
    ),
    "MaxViT": lambda: oracle("maxvit_tiny").build(**MAXVIT),
    "MaxViT, other convolutions": lambda: oracle("maxvit_tiny").build(
        **MAXVIT, conv_kernel_size=5, conv_expand_ratio=2.0, conv_attn_layer="", stem_bias=False
    ),
    "InceptionNeXt": lambda: oracle("inception_next_atto").build(
        **SHALLOW, mlp_ratios=(4, 2, 3, 4), drop_path_rate=0.1
    ),
    "ViT": lambda: VisionTransformer(**VIT, norm_layer=nn.LayerNorm, init_values=0.1),
    "ViT, norm first": lambda: VisionTransformer(
        **VIT | {"img_size": (32, 16), "fc_norm": False, "act_layer": "relu", "proj_bias": False}
    ),
    "MLP-Mixer": lambda: MlpMixer(**FLAT, num_blocks=2),
    "ResMLP": lambda: oracle("resmlp_s12").build(**FLAT, num_blocks=2, mlp_ratio=2),
}


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_is_the_same_and_its_spec_is_plain_data(network):
    theirs = perturb(NETWORKS[network]()).double()
    ours = hierarch.from_timm(theirs.train())
    assert theirs.training
    assert not ours.training
    spec = hierarch.loads(hierarch.dump(ours.spec))
    assert spec == ours.spec
    again = hierarch.build(spec).double().eval()
    again.load_state_dict(ours.state_dict())
    size = [64, 64] if isinstance(theirs, ConvNeXt) else spec.input_size
    sides = [size, size] if isinstance(size, int) else size
    images = noise(2, spec.stem.in_chans, *sides, dtype=torch.float64)
    wanted = theirs.eval()(images)
    for found in (ours, again):
        assert float((found(images) - wanted).abs().max()) < 1e-10 * float(wanted.abs().max())


PRESETS = [
    *("swin_tiny", "swin_v2/swin_v2_base_window12to16_192to256"),
    *("metaformer/poolformer_s12", "metaformer/caformer_s18", "convnext/convnext_tiny"),
    "inception_next/inception_next_tiny",
    *("focalnet/focalnet_tiny_srf", "focalnet/focalnet_large_fl3", "davit/davit_tiny"),
    *("maxvit/maxvit_tiny", "maxvit/maxvit_small"),
    *("vit/dinov3_small_patch16", "vit/dinov3_small_plus_patch16"),
    "vit/parallel_vit_wee_patch16",
    *("vit/vit_tiny_patch16", "mlp/mlp_mixer_base_patch16", "mlp/resmlp_s12"),
]


def comparable(spec):
    """Without drop path, which timm leaves out unless asked, and rules for small maps, of which
    timm has one."""
    stages = []
    for stage in spec.plan():
        mixers = [
            mixer.model_copy(update={"small_map": "pad"}) if hasattr(mixer, "small_map") else mixer
            for mixer in stage.mixers
        ]
        blocks = [replace(b, mixer=m) for b, m in zip(stage.blocks, mixers, strict=True)]
        stages.append(replace(stage, cycle=tuple(blocks), drop_paths=()))
    return spec.stem, spec.position_embedding, spec.head, spec.input_size, stages


@pytest.mark.parametrize("preset", PRESETS)
def test_the_spec_of_a_presets_network_is_the_presets(preset):
    wanted, arguments = small(preset)
    found = hierarch.from_timm(oracle(preset).build(**arguments)).spec
    assert comparable(found) == comparable(wanted)


def test_a_network_is_made_by_name():
    found = hierarch.from_timm("convnext_atto", num_classes=3, drop_path_rate=0.1)
    assert found.spec.name == "convnext_atto"
    assert (found.spec.input_size, found.spec.drop_path_rate) == (224, 0.1)
    assert found(noise(1, 3, 32, 32)).shape == (1, 3)
    with pytest.raises(PeerError, match="no model 'convnext_atom', did you mean 'convnext_atto'"):
        hierarch.from_timm("convnext_atom")
    with pytest.raises(TypeError, match="are for a network given by its name"):
        hierarch.from_timm(swin(), num_classes=3)


REFUSED = {
    "no MLP like GluMlp": lambda: VisionTransformer(**VIT, mlp_layer=GluMlp),
    "ViT with SwiGLU are not": lambda: VisionTransformer(**VIT, mlp_layer=SwiGLU),
    "no activation like Mish": lambda: ConvNeXt(**SHALLOW, act_layer="mish"),
    "are not recognized": lambda: VisionTransformer(**VIT, pos_embed="none"),
    "no norm like RmsNorm": lambda: ConvNeXt(**SHALLOW, norm_layer="rmsnorm2d"),
    "no dilation": lambda: ConvNeXt(**SHALLOW, output_stride=16),
    "several convolutions": lambda: ConvNeXt(**SHALLOW, stem_type="overlap"),
    "no q_norm inside attention": lambda: VisionTransformer(**VIT, qk_norm=True),
    "the mean over tokens, and this one ''": lambda: swin(global_pool=""),
    "no rate for the dropout of layers.0": lambda: swin(attn_drop_rate=0.1),
    "heads have 32 channels together": lambda: swin(head_dim=16),
    "shifts before it pads": lambda: swin(img_size=48, window_size=5),
    "drop path does not rise": lambda: MlpMixer(**FLAT, num_blocks=2, drop_path_rate=0.1),
    "no position bias like RelPosBias": lambda: timm.create_model("test_maxvit"),
    "no block like MbConvBlock": lambda: timm.create_model("test_coatnet"),
    "excites before the second norm": lambda: oracle("maxvit_tiny").build(
        **MAXVIT, conv_attn_early=True
    ),
    "pools in place of a stride": lambda: oracle("maxvit_tiny").build(
        **MAXVIT, conv_stride_mode="pool"
    ),
    "ResNet is none of SwinTransformer, ": lambda: timm.create_model("test_resnet"),
    "FeatureListNet is none of": lambda: timm.create_model("test_convnext", features_only=True),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_no_spec_describes_is_refused_with_the_reason(reason):
    with pytest.raises(PeerError, match=f"no spec describes timm's .*({reason})"):
        hierarch.from_timm(REFUSED[reason]())


def test_a_network_that_computes_something_else_is_refused():
    theirs = swin()
    theirs.layers[1].register_forward_hook(lambda module, inputs, output: output.roll(1, 1) * 2)
    with pytest.raises(PeerError, match="the outputs of its spec's network differ by"):
        hierarch.from_timm(theirs)


def test_weights_without_a_place_are_refused():
    theirs = swin()
    theirs.adapter = nn.Linear(1, 1)
    with pytest.raises(PeerError, match=r"no place for: adapter.bias, adapter.weight"):
        hierarch.from_timm(theirs)
