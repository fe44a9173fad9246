"""Claim and count, compared with each other and with torch's counter; the fit and the verdict."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import strategies
import torch
from helpers import shallow
from hypothesis import HealthCheck, given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import hierarch
from hierarch.complexity import count, default_sizes
from hierarch.complexity.witnesses import measure
from hierarch.spec.claim import base_size, claim, growing
from hierarch.spec.grid import tokens
from hierarch.spec.parts import MixerSpec

DOCS = Path(__file__).parents[1] / "docs"
PUBLISHED = list(csv.DictReader((DOCS / "published.csv").read_text().splitlines()))
FAMILIES = [
    *("swin_tiny", "swin_mixer_base_d24", "swin_v2_base_window12to24_192to384", "convnext_tiny"),
    *("poolformer_v2_s12", "convformer_s18", "caformer_s18", "mlp_mixer_base_patch16"),
    *("resmlp_s12", "vit_tiny_patch16", "maxvit_tiny"),
]
LINEAR = {"mlp_mixer_base_patch16"}
"""Its token MLPs have a hidden layer of fixed width."""
SIZES = [(224, 224), (225, 301), (1, 1), (256, 320), (64, 96), (33, 500), (97, 31), (768, 512)]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["name"])
def test_parameters_are_the_published_ones_and_macs_within_rounding(row):
    spec = hierarch.load(row["name"])
    report = measure(spec, [spec.input_size])
    assert report.params == int(row["params"])
    assert report.sizes[0].macs == pytest.approx(float(row["gmacs"]) * 1e9, rel=0.015)


def test_every_published_model_is_in_the_table():
    assert {row["name"] for row in PUBLISHED} == {n for n in hierarch.presets() if "/" not in n}


def assert_claim_equals_count(spec, sizes):
    report = measure(spec, sizes)
    for size in report.sizes:
        assert size.macs == size.claimed_macs
        assert size.parts == size.claimed_parts
        assert size.macs == sum(stage.macs for stage in size.stages) + size.stem + size.head
        for stage in size.stages:
            assert stage.parts == stage.claimed_parts
            assert stage.macs == stage.claimed_macs == sum(stage.parts.values())
        assert 0 <= size.padding_macs < size.macs


@pytest.mark.parametrize("name", hierarch.presets(axes=2))
def test_claim_equals_count_for_every_preset(name):
    assert_claim_equals_count(shallow(name), SIZES[1:2])


@pytest.mark.parametrize("name", FAMILIES)
def test_claim_equals_count_at_every_size_and_at_full_depth(name):
    assert_claim_equals_count(shallow(name), SIZES)
    assert_claim_equals_count(name, [(256, 192)])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(strategies.backbone_specs(), strategies.image_sizes())
def test_claim_equals_count_for_any_spec(spec, size):
    assert_claim_equals_count(spec, [size])


def counted_by_torch(model, images) -> int:
    """MACs by torch's own counter, of matrix products and convolutions only."""

    def attention(q, k, v, *args, out_shape=None, **kwargs) -> int:
        return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    rules: dict[object, Callable[..., int]] = {fused: attention}
    with FlopCounterMode(display=False, custom_mapping=rules) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops() // 2


def products(spec, size) -> int:
    """Our count without norms, which torch's counter leaves out."""
    operators = measure(spec, [size]).sizes[0].operators
    return sum(
        macs for op, macs in operators.items() if op not in ("layer_norm", "upsample_bicubic2d")
    )


@pytest.mark.parametrize(
    "name",
    [
        "swin_tiny",
        "swin_mixer_tiny_d24",
        "ablations/swin_tiny_pooling",
        "ablations/swin_tiny_global_attention",
    ],
)
@pytest.mark.parametrize("size", [(224, 224), (75, 101)])
def test_torchs_own_counter_agrees_on_real_tensors(name, size):
    model = hierarch.build(name).eval()
    assert counted_by_torch(model, torch.zeros(1, 3, *size)) == products(name, size)


@pytest.mark.parametrize("name", ["swin_large_384", "swin_mixer_base_d24"])
def test_torchs_own_counter_agrees_on_the_meta_device(name):
    with torch.device("meta"):
        model, images = hierarch.build(name).eval(), torch.zeros(1, 3, 1536, 1152)
    assert counted_by_torch(model, images) == products(name, (1536, 1152))


@pytest.mark.parametrize(
    "name", [*(name for name in hierarch.presets() if name.startswith("ablations/")), *FAMILIES]
)
def test_default_sizes_pad_nothing_and_the_verdict_is_the_papers(name):
    spec = shallow(name)
    report = measure(spec)
    used = {mixer.type for stage in spec.plan() for mixer in stage.mixers}
    quadratic = used & {"global_attention", "token_mlp"} if name not in LINEAR else set()
    assert report.verdict == ("superlinear" if quadratic else "linear")
    areas = [size.pixels for size in report.sizes]
    assert [area // areas[0] for area in areas] == [1, 4, 16, 64]
    assert report.r2 is not None
    assert report.exponent is not None
    assert report.r2 > 0.99
    # CAFormer attends on its two coarsest grids alone
    least = 1.2 if name == "caformer_s18" else 1.3
    assert report.exponent > least if quadratic else abs(report.exponent - 1) < 0.005
    if quadratic:
        assert all(mixer in report.why for mixer in quadratic)
        assert "N²C" in report.why
    elif "window_attention" in str(spec.mixer):
        assert all(size.padding_macs == 0 for size in report.sizes)


def test_swin_costs_the_same_per_token_at_every_aligned_size():
    report = measure("swin_tiny")
    assert report.exponent == pytest.approx(1, abs=1e-9)
    for stages in zip(*(size.stages for size in report.sizes), strict=True):
        assert len({stage.macs_per_token for stage in stages}) == 1


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("swin_tiny", (224, 224)),
        ("swin_base_384", (384, 384)),
        ("swin_mixer_tiny_d24", (256, 256)),
        ("ablations/swin_tiny_pooling", (224, 224)),
        ("ablations/swin_tiny_global_attention", (224, 224)),
    ],
)
def test_the_smallest_size_without_padding(name, base):
    assert base_size(hierarch.load(name)) == base
    assert default_sizes(hierarch.load(name))[0] == base


def test_the_smallest_size_without_padding_of_rectangles():
    mixer = {"type": "window_attention", "head_dim": 4, "window_size": [3, 5]}
    stages = [{"dim": 8, "depth": 1}, {"dim": 8, "depth": 1}]
    spec = hierarch.load(
        {"mixer": mixer, "stages": stages, "stem": {"type": "patch_embed", "patch_size": 2}}
    )
    assert base_size(spec) == (12, 20)
    assert measure(spec, [(12, 20)]).sizes[0].padding_macs == 0


def test_windows_that_fit_only_huge_images_need_sizes():
    stages = [
        {"dim": 8, "depth": 1, "mixer": {"type": "window_mlp", "head_dim": 4, "window_size": size}}
        for size in (61, 59, 53)
    ]
    spec = hierarch.load({"stages": stages})
    with pytest.raises(hierarch.SpecError, match="give the sizes"):
        measure(spec)
    assert measure(spec, [64]).verdict == "linear"
    one = hierarch.load({"stages": [stages[0] | {"dim": 8}, stages[1]]})
    assert [size[0] // (4 * 2 * 61 * 59) for size in default_sizes(one)] == [1, 2]


def test_the_cost_of_padding_is_that_of_the_padding_tokens():
    # 57 rows of tokens in windows of 7: 63, at the same cost per token
    mixer = {"type": "window_attention", "head_dim": 32, "window_size": 7}
    spec = hierarch.load({"mixer": mixer, "stages": [{"dim": 32, "depth": 1}]})
    size = measure(spec, [(4 * 57, 4 * 7)]).sizes[0]
    per_token = 4 * 32**2 + 2 * 49 * 32
    assert size.padding_macs == (63 - 57) * 7 * per_token
    # one pixel too many in both directions: the stem pads 3 rows and 3 columns
    stem = measure(spec, [(4 * 56 + 1, 4 * 6 + 1)]).sizes[0]
    grid, pixels = (57, 7), (57 * 4) * (7 * 4) - 225 * 25
    assert stem.padding_macs == pixels * 3 * 32 + (63 - grid[0]) * 7 * per_token


class LogMixerSpec(MixerSpec):
    """A mixer that costs N log N: superlinear, but no power of N."""

    formula: ClassVar[str] = "NC log N"
    type: Literal["log"] = "log"

    def macs(self, *, dim, grid):
        return 1000 * tokens(grid) * dim + tokens(grid) * tokens(grid).bit_length()

    def build(self, dim):
        return nn.Identity()


class LiarSpec(LogMixerSpec):
    """A mixer whose claim is one too high."""

    type: Literal["liar"] = "liar"

    def macs(self, *, dim, grid):
        return 1


def spec_with(mixer):
    return hierarch.load({"stages": [{"dim": 8, "depth": 2, "mixer": mixer}], "name": "mine"})


def test_a_logarithm_is_superlinear():
    assert growing(spec_with(LogMixerSpec())) == ["log costs NC log N in stage 0"]
    assert measure(spec_with(LogMixerSpec()), [64]).verdict == "superlinear"


def test_a_claim_that_is_off_by_one_is_unproven():
    report = measure(spec_with(LiarSpec()), [64])
    assert report.verdict == "unproven"
    assert "counts 0 MACs for the mixer of stage 0, and the spec claims 2" in report.why


def test_padding_alone_is_not_superlinear():
    for small_map in ("pad", "pad_shift", "clamp", "clamp_both"):
        for type in ("window_attention", "window_mlp"):
            mixer = {"type": type, "head_dim": 4, "window_size": [64, 61], "shift_size": [1, 60]}
            assert growing(spec_with({**mixer, "small_map": small_map})) == []


def test_a_part_other_than_the_mixer_may_grow(monkeypatch):
    from hierarch.norms.layer_norm import LayerNormSpec

    monkeypatch.setattr(LayerNormSpec, "macs", lambda self, *, dim, grid: tokens(grid) ** 2)
    assert growing(spec_with("identity")) == ["a part other than the mixers grows"]


def test_one_area_has_no_fit():
    report = measure("swin_tiny", [(32, 64), (64, 32)])
    assert (report.exponent, report.r2) == (None, None)
    assert report.to_dict()["fit"] == {"exponent": None, "r2": None}


@pytest.mark.parametrize(
    "sizes", [[], [0], [-1], [2**17], [(1, 2, 3)], ["224"], [(224, 2.5)], [True]]
)
def test_an_invalid_size_is_an_error(sizes):
    with pytest.raises(hierarch.SpecError, match="size"):
        measure("swin_tiny", sizes)


def test_the_cost_of_output_norms_is_in_their_stages():
    with_head = measure("swin_tiny", [224]).sizes[0]
    spec = hierarch.build("swin_tiny", head=None, out_indices=(1, 3)).spec
    assert_claim_equals_count(spec, [(224, 224), (225, 226)])
    headless = measure(spec, [224]).sizes[0]
    assert headless.head == 0
    extra = [a.macs - b.macs for a, b in zip(headless.stages, with_head.stages, strict=True)]
    assert extra == [0, 5 * 28 * 28 * 192, 0, 5 * 7 * 7 * 768]


def test_the_claim_needs_no_module():
    assert claim(hierarch.load("swin_tiny"), (224, 224)).macs == 4_509_194_496


def test_counts_are_reported_by_module():
    with torch.device("meta"):
        model = hierarch.build("swin_tiny").eval()
    counts = count(model, (224, 224), in_chans=3)
    stage = measure("swin_tiny", [224]).sizes[0].stages[2]
    assert counts.total("stages.2") == stage.macs
    assert counts.total("no.such.module") == 0
