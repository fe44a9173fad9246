"""The tables of names: read what they write, and for the official code its whole state dict."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny, without_mask
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_swin_mlp_parity import GOLDEN
from torch import nn

import hierarch
from hierarch.weights.names import Template, from_ours, from_theirs
from hierarch.weights.registry import get_layouts

NETWORKS = {
    "swin": tiny(input_size=64, head={"num_classes": 5}),
    "swin v2": tiny("cosine_window_attention", input_size=64, head={"num_classes": 5})
    | {"block": "post_norm", "downsample": {"type": "patch_merging", "norm_last": True}},
    "swin mlp": tiny("window_mlp", input_size=64, head={"num_classes": 5}),
    "swin without a head": tiny(input_size=64, output_norm=False),
    "swin with output norms": tiny(out_indices=[0, 2]),
}
HOLD = {
    "swin": ["official", "timm", "torchvision", "huggingface"],
    "swin v2": ["official", "timm", "torchvision", "huggingface"],
    "swin mlp": ["official"],
    "swin without a head": ["official", "timm", "torchvision", "huggingface", "mmdetection"],
    "swin with output norms": ["huggingface", "mmdetection"],
}
"""The libraries that have names for all of a network's weights."""


@given(st.integers(0, 99), st.integers(0, 99))
@pytest.mark.parametrize("text", ["a.{i}.b.{j}.*", "features.{2i+1}.{j}.*", "x{i+1}.{j}.*"])
def test_a_template_reads_what_it_writes(text, i, j):
    template = Template(text)
    bound = {"i": str(i), "j": str(j), "rest": "c.weight"}
    assert template.read(template.write(bound)) == bound


def test_templates_tell_odd_from_even_and_know_no_stage_before_the_first():
    assert Template("features.{2i+1}.*").read("features.4.weight") is None
    assert Template("features.{2i}.*").read("features.4.weight") == {"i": "2", "rest": "weight"}
    assert Template("layers.{i+1}.*").read("layers.0.weight") is None
    assert Template("layers.{i-1}.*").write({"i": "0", "rest": "weight"}) is None


CASES = [(network, library) for network, libraries in HOLD.items() for library in libraries]


@pytest.mark.parametrize(("network", "library"), CASES)
def test_own_to_theirs_to_own_is_the_identity(network, library):
    model = perturb(hierarch.build(NETWORKS[network]))
    written = hierarch.export_weights(model, layout=library)
    again = perturb(hierarch.build(NETWORKS[network]), seed=5)
    report = hierarch.load_weights(again, written)
    assert report.layout == library
    assert set(report.loaded) == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("network", NETWORKS)
def test_who_has_no_names_says_so(network):
    model = hierarch.build(NETWORKS[network])
    for library in {layout.library for layout in get_layouts()} - {*HOLD[network], "hierarch"}:
        with pytest.raises(
            hierarch.WeightsError,
            match=f"{library}(:.* has no name for weights| has no network on 2 axes)",
        ):
            hierarch.export_weights(model, layout=library)


UNBIASED = hierarch.load("parallel_vit_wee_patch16").to_data()
UNBIASED |= {"mixer": {"type": "global_attention", "head_dim": 64, "qkv_bias": False}}
TOLD_APART = [
    *("swin_tiny", "swin_mixer_tiny_d24", "swin_v2_tiny_window8_256", "convnext_tiny"),
    *("caformer_s18", "poolformer_s12", "vit_tiny_patch16", "mlp_mixer_base_patch16", "resmlp_s12"),
    *("pvt_v2_b0", "twins_svt_small", "deit_tiny_patch16", "deit_tiny_distilled_patch16"),
    *("focalnet_tiny_srf", "focalnet_large_fl3", "davit_tiny", "inception_next_atto"),
    *("nat_small", "dinat_tiny", "maxvit_tiny", "maxvit_small"),
    *("van_b0", "cswin_tiny", "dinov3_small_patch16", "dinov3_small_plus_patch16"),
    *("parallel_vit_wee_patch16", "swin_unetr", UNBIASED),
]


@pytest.fixture(scope="module")
def told_apart():
    """The names of each network's weights."""
    with torch.device("meta"):
        return [list(hierarch.build(network).state_dict()) for network in TOLD_APART]


@pytest.mark.parametrize("layout", get_layouts(), ids=lambda layout: layout.name)
def test_a_table_says_the_same_from_both_sides(layout, told_apart):
    read = 0
    for names in told_apart:
        links, unknown = from_ours(layout.rows, names)
        if unknown:
            continue
        back, strangers = from_theirs(layout.rows, [n for link in links for n in link.theirs])
        assert [(a.ours, a.theirs) for a in back] == [(a.ours, a.theirs) for a in links]
        assert strangers == []
        read += 1
    assert read or layout.name == "mmdetection:swin"  # it has no classifier


# the official code, which no package installs: its state dict by hand


def official_keys(*, v2):
    """Names and shapes of Swin's state dict at 64 pixels: 3 stages of widths 8, 16, 24."""
    keys = {"patch_embed.proj.weight": (8, 3, 4, 4), "patch_embed.proj.bias": (8,)}
    keys |= {f"patch_embed.norm.{n}": (8,) for n in ("weight", "bias")}
    for i, (dim, depth, side) in enumerate([(8, 2, 16), (16, 3, 8), (24, 2, 4)]):
        heads = dim // 4
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            keys |= {f"{block}.norm{n}.{k}": (dim,) for n in (1, 2) for k in ("weight", "bias")}
            attn = f"{block}.attn"
            keys[f"{attn}.qkv.weight"] = (3 * dim, dim)
            keys[f"{attn}.relative_position_index"] = (16, 16)
            if v2:
                keys |= {f"{attn}.q_bias": (dim,), f"{attn}.v_bias": (dim,)}
                keys[f"{attn}.logit_scale"] = (heads, 1, 1)
                keys[f"{attn}.relative_coords_table"] = (1, 7, 7, 2)
                keys[f"{attn}.cpb_mlp.0.weight"] = (512, 2)
                keys[f"{attn}.cpb_mlp.0.bias"] = (512,)
                keys[f"{attn}.cpb_mlp.2.weight"] = (heads, 512)
            else:
                keys[f"{attn}.qkv.bias"] = (3 * dim,)
                keys[f"{attn}.relative_position_bias_table"] = (49, heads)
            keys |= {f"{attn}.proj.weight": (dim, dim), f"{attn}.proj.bias": (dim,)}
            keys |= {f"{block}.mlp.fc1.weight": (2 * dim, dim), f"{block}.mlp.fc1.bias": (2 * dim,)}
            keys |= {f"{block}.mlp.fc2.weight": (dim, 2 * dim), f"{block}.mlp.fc2.bias": (dim,)}
            if j % 2 and side > 4:
                keys[f"{block}.attn_mask"] = ((side // 4) ** 2, 16, 16)
        if i < 2:
            merging = f"layers.{i}.downsample"
            wide = (16, 24)[i]
            keys[f"{merging}.reduction.weight"] = (wide, 4 * dim)
            normed = wide if v2 else 4 * dim
            keys |= {f"{merging}.norm.{k}": (normed,) for k in ("weight", "bias")}
    keys |= {f"norm.{k}": (24,) for k in ("weight", "bias")}
    return keys | {"head.weight": (5, 24), "head.bias": (5,)}


@pytest.fixture(scope="module", params=["swin", "swin v2"])
def official(request):
    model = perturb(hierarch.build(NETWORKS[request.param]))
    return request.param == "swin v2", hierarch.export_weights(model, layout="official")


def test_the_official_state_dict_is_whole(official):
    v2, state = official
    assert {name: tuple(value.shape) for name, value in state.items()} == official_keys(v2=v2)


def test_the_official_index_is_that_of_the_formula(official):
    index = official[1]["layers.0.blocks.0.attn.relative_position_index"]
    assert index.dtype == torch.long
    for n in range(16):
        for m in range(16):
            dy, dx = n // 4 - m // 4, n % 4 - m % 4
            assert index[n, m] == (dy + 3) * 7 + dx + 3


def test_the_official_masks_are_those_of_its_nine_regions(official):
    mask = official[1]["layers.0.blocks.1.attn_mask"]

    def region(place, size=16, window=4, shift=2):
        return (place >= size - window) + (place >= size - shift)

    for window in range(16):
        top, left = 4 * (window // 4), 4 * (window % 4)
        labels = [(region(top + n // 4), region(left + n % 4)) for n in range(16)]
        for n in range(16):
            for m in range(16):
                assert mask[window, n, m] == (0 if labels[n] == labels[m] else -100)


@pytest.mark.parametrize("network", ["swin", "swin v2"])
def test_without_a_mask_the_official_ones_are_zeros_and_the_rest_is_the_same(network):
    masked = perturb(hierarch.build(NETWORKS[network]))
    model = hierarch.build(without_mask(masked.spec))
    model.load_state_dict(masked.state_dict())
    for library in HOLD[network]:
        written = hierarch.export_weights(model, layout=library)
        expected = hierarch.export_weights(masked, layout=library)
        assert written.keys() == expected.keys()
        for name, value in written.items():
            if name.endswith(".attn_mask"):
                assert not value.any()
                assert expected[name].any()
                assert value.shape == expected[name].shape
            else:
                assert torch.equal(value, expected[name]), name


def test_the_official_coordinates_are_those_of_the_formula():
    model = hierarch.build(NETWORKS["swin v2"])
    state = hierarch.export_weights(model, layout="official")
    table = state["layers.0.blocks.0.attn.relative_coords_table"]
    for y in range(-3, 4):
        for x in range(-3, 4):
            wanted = [
                math.copysign(math.log2(abs(c) / 3 * 8 + 1) / math.log2(8), c) for c in (y, x)
            ]
            found = table[0, y + 3, x + 3].tolist()
            assert found == pytest.approx(wanted, abs=1e-6)


def test_the_published_swin_mlp_comes_back_as_it_was():
    golden = load_file(GOLDEN)
    params = {n.removeprefix("params."): t for n, t in golden.items() if n.startswith("params.")}
    model = hierarch.from_checkpoint(params)
    torch.testing.assert_close(model(golden["input"]), golden["logits"], rtol=0, atol=1e-6)
    again = hierarch.export_weights(model, layout="official")
    weights = {n: t for n, t in params.items() if not n.endswith(("index", "mask"))}
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_mmdetections_merging_computes_the_same():
    """Its patch merging, from its description: `nn.Unfold`, norm, linear."""
    model = perturb(hierarch.build(NETWORKS["swin with output norms"]))
    state = hierarch.export_weights(model, layout="mmdetection")
    x = noise(2, 8, 6, 10)
    prefix = "stages.0.downsample"
    columns = nn.Unfold(kernel_size=2, stride=2)(x).transpose(1, 2)
    norm = state[f"{prefix}.norm.weight"], state[f"{prefix}.norm.bias"]
    normed = F.layer_norm(columns, (32,), *norm)
    theirs = F.linear(normed, state[f"{prefix}.reduction.weight"]).view(2, 3, 5, 16)
    ours = model.stages[1].downsample(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert {"norm0.weight", "norm2.bias"} <= state.keys()
    assert "stages.0.blocks.0.attn.w_msa.relative_position_index" in state
