"""The spec language: fields, defaults and the plan."""

import collections

import pytest
from hypothesis import given, settings
from pydantic import ValidationError
from strategies import backbone_specs

import hierarch
from hierarch import BackboneSpec, SpecError, StageSpec

STAGES = [{"dim": 32, "depth": 1}, {"dim": 64, "depth": 2}, {"dim": 128, "depth": 3}]
PAPER_PRESETS = {
    *("swin_tiny", "swin_small", "swin_base", "swin_large", "swin_base_384", "swin_large_384"),
    *("swin_tiny_d24", "swin_mixer_tiny_d24", "swin_mixer_tiny_d12", "swin_mixer_tiny_d6"),
    "swin_mixer_base_d24",
}

HEADED = [
    *("window_attention", "window_mlp", "global_attention", "cosine_window_attention"),
    *("grid_attention", "neighborhood_attention", "linear_attention"),
    *("channel_attention", "cross_window_attention", "reduced_attention"),
]


def spec(**fields):
    return hierarch.load({"mixer": "identity", "stages": STAGES, **fields})


def own(**fields):
    """Stages, of which the second overrides fields of the top level."""
    return [STAGES[0], STAGES[1] | fields, STAGES[2]]


def test_defaults_are_the_published_ones():
    plain = spec()
    assert plain.input_size == 224
    assert plain.stem.to_data() == "patch_embed"
    assert (plain.stem.patch_size, plain.stem.in_chans) == (4, 3)
    assert plain.stem.norm.type == plain.norm.type == "layer_norm"
    assert plain.norm.eps == 1e-5
    assert plain.downsample.type == "patch_merging"
    assert plain.block.to_data() == "pre_norm"
    assert plain.block.residual_scale is None
    assert (plain.mlp_ratio, plain.mlp_bias, plain.activation.type) == (4, True, "gelu")
    assert (plain.drop_rate, plain.drop_path_rate, plain.layer_scale) == (0, 0, None)
    assert plain.position_embedding is None
    assert plain.head is None


@pytest.mark.parametrize(
    ("field", "top", "stage", "planned", "expected"),
    [
        ("mixer", "pooling", "identity", lambda s: s.mixers[0].type, ("pooling", "identity")),
        (
            "norm",
            {"type": "layer_norm", "eps": 0.5},
            "layer_norm",
            lambda s: s.norm.eps,
            (0.5, 1e-5),
        ),
        ("mlp_ratio", 2, 3.5, lambda s: s.blocks[0].hidden_dim / s.dim, (2, 3.5)),
        ("mlp_bias", True, False, lambda s: s.blocks[0].mlp_bias, (True, False)),
        ("mlp_bias", False, True, lambda s: s.blocks[0].mlp_bias, (False, True)),
        (
            "activation",
            "relu",
            "star_relu",
            lambda s: s.blocks[0].activation.type,
            ("relu", "star_relu"),
        ),
        (
            "block",
            "post_norm",
            {"type": "pre_norm", "residual_scale": 1},
            lambda s: s.blocks[0].spec.to_data(),
            ("post_norm", {"type": "pre_norm", "residual_scale": 1}),
        ),
        ("drop_rate", 0.25, 0.0, lambda s: s.blocks[0].drop_rate, (0.25, 0)),
        ("layer_scale", 0.1, 1e-6, lambda s: s.blocks[0].layer_scale, (0.1, 1e-6)),
        (
            "downsample",
            {"type": "patch_merging", "norm": {"type": "layer_norm", "eps": 0.5}},
            "patch_merging",
            lambda s: s.downsample and s.downsample.norm.eps,
            (0.5, 1e-5),
        ),
    ],
)
def test_a_stage_overrides_the_default_of_the_top(field, top, stage, planned, expected):
    default, overridden = expected
    everywhere = spec(**{field: top}).plan()
    assert [planned(s) for s in everywhere[1:]] == [default, default]
    one = spec(**{field: top, "stages": own(**{field: stage})}).plan()
    assert [planned(s) for s in one[1:]] == [overridden, default]


def test_the_first_stage_has_no_downsampling_by_default():
    assert [bool(stage.downsample) for stage in spec().plan()] == [False, True, True]
    first = [STAGES[0] | {"downsample": "patch_merging"}, *STAGES[1:]]
    assert [bool(stage.downsample) for stage in spec(stages=first).plan()] == [True, True, True]


def test_block_i_of_every_stage_takes_entry_i_of_the_cycle():
    cycle = spec(mixer=["pooling", "identity"]).plan()
    types = [[mixer.type for mixer in stage.mixers] for stage in cycle]
    assert types == [["pooling"], ["pooling", "identity"], ["pooling", "identity", "pooling"]]


def test_a_stage_without_any_mixer_is_refused():
    with pytest.raises(SpecError, match=r"stages\[0\]: has no mixer; give it one, or give one"):
        hierarch.load({"stages": STAGES})
    assert hierarch.load({"stages": [s | {"mixer": "identity"} for s in STAGES]}).mixer is None


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("mixer", "pooling"),
        ("norm", "layer_norm"),
        ("norm", "affine"),
        ("block", "single_residual"),
        ("activation", "squared_relu"),
        ("stem", "patch_embed"),
        ("stem", "conv_stem"),
        ("downsample", "patch_merging"),
        ("downsample", "conv_downsample"),
    ],
)
def test_a_bare_name_is_short_for_a_mapping_with_its_type(field, name):
    assert spec(**{field: name}) == spec(**{field: {"type": name}})


def test_one_mixer_is_short_for_a_list_of_one():
    assert spec(mixer="pooling") == spec(mixer=["pooling"]) == spec(mixer=[{"type": "pooling"}])


def test_one_head_dim_fits_stages_of_every_width():
    plan = spec(mixer={"type": "global_attention", "head_dim": 32}).plan()
    assert [stage.mixers[0].heads(stage.dim) for stage in plan] == [1, 2, 4]
    plan = spec(mixer={"type": "global_attention", "num_heads": 4}).plan()
    assert [stage.mixers[0].heads(stage.dim) for stage in plan] == [4, 4, 4]


@pytest.mark.parametrize("name", HEADED)
@pytest.mark.parametrize(
    ("heads", "found"), [({}, "neither"), ({"head_dim": 8, "num_heads": 4}, "both")]
)
def test_exactly_one_of_head_dim_and_num_heads(name, heads, found):
    with pytest.raises(SpecError, match=f"mixer: give head_dim or num_heads; {found} given"):
        spec(mixer={"type": name, **heads})


@pytest.mark.parametrize(
    ("written", "read"), [(6, 6), ([6, 6], 6), ([6, 8], (6, 8)), ((8, 6), (8, 6))]
)
def test_a_length_is_one_integer_or_height_and_width(written, read):
    mixer = {"type": "window_mlp", "head_dim": 8, "window_size": written}
    stem = {"type": "patch_embed", "patch_size": written}
    position = {"type": "absolute", "grid": written}
    made = spec(mixer=mixer, input_size=written, stem=stem, position_embedding=position)
    assert made.mixer[0].window_size == made.input_size == read
    assert made.stem.patch_size == made.position_embedding.grid == read


@pytest.mark.parametrize(
    ("window", "shift"), [(7, 7), (7, 8), ([7, 4], 4), (4, [1, 4]), ([4, 7], [4, 3])]
)
def test_a_shift_is_smaller_than_its_window_on_both_axes(window, shift):
    mixer = {"type": "window_mlp", "head_dim": 8, "window_size": window, "shift_size": shift}
    with pytest.raises(SpecError, match=r"mixer\.shift_size: should be smaller than window_size="):
        spec(mixer=mixer)
    assert spec(mixer=mixer | {"shift_size": [3, 3]}).mixer[0].shift_size == 3


def test_all_stages_are_outputs_where_there_is_no_head_and_none_where_there_is():
    assert spec().outputs == (0, 1, 2)
    assert spec(out_indices=[0, 2]).outputs == (0, 2)
    assert spec(head={}).outputs == ()
    normed = [bool(stage.output_norm) for stage in spec(out_indices=[0, 2]).plan()]
    assert normed == [True, False, True]


def test_a_stage_after_the_last_output_is_not_planned():
    shortened = spec(out_indices=[1], drop_path_rate=0.5).plan()
    assert shortened == spec(out_indices=[1, 2], drop_path_rate=0.5).plan()[:2]


@pytest.mark.parametrize("indices", [[], [0, 0], [1, 0], [3], [-1]])
def test_out_indices_are_rising_numbers_of_stages(indices):
    expected = r"out_indices: should be rising numbers of stages from 0 to 2, got \["
    with pytest.raises(SpecError, match=expected):
        spec(out_indices=indices)


def test_out_indices_and_a_head_exclude_each_other():
    with pytest.raises(SpecError, match=r"out_indices: is for a network without a head; leave out"):
        spec(out_indices=[0], head={"num_classes": 10})


def test_a_position_embedding_is_none_or_a_part():
    assert spec(position_embedding="none") == spec(position_embedding=None) == spec()
    absolute = spec(position_embedding={"type": "absolute", "grid": [56, 48]})
    assert absolute.position_embedding.grid == (56, 48)
    with pytest.raises(SpecError, match=r"position_embedding\.type: unknown position 'relative'"):
        spec(position_embedding={"type": "relative", "grid": 7})


def test_a_position_of_a_stage_comes_after_some_of_its_blocks():
    plan = spec(position="conditional", position_after=1).plan()
    assert {(stage.position.type, stage.position_after) for stage in plan} == {("conditional", 1)}
    with pytest.raises(SpecError, match=r"stages\[0\]\.position_after: should be at most"):
        spec(position="conditional", position_after=200)
    with pytest.raises(SpecError, match=r"dim=6 is not divisible by 4, for the sines.*sinusoidal"):
        spec(position_embedding="sinusoidal", mixer="pooling", stages=[{"dim": 6, "depth": 1}])


def test_drop_path_rises_linearly_over_the_whole_network():
    rates = [rate for stage in spec(drop_path_rate=0.5).plan() for rate in stage.drop_paths]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    lone = spec(drop_path_rate=0.5, stages=[{"dim": 8, "depth": 1}])
    assert lone.plan()[0].drop_paths == (0,)


def test_a_head_has_a_thousand_classes_by_default():
    assert spec(head={}).head.num_classes == 1000
    assert spec(head={"num_classes": 0}).head.num_classes == 0


def test_specs_are_frozen():
    made = spec()
    with pytest.raises(ValidationError, match="frozen"):
        made.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        made.stages[0].dim = 8
    with pytest.raises(ValidationError, match="frozen"):
        made.mixer[0].type = "pooling"
    assert hash(made) == hash(spec())


def test_specs_can_be_made_in_python():
    stages = (StageSpec(dim=32, depth=1, mixer="identity"),)
    made = BackboneSpec(stages=stages, norm="layer_norm", head={"num_classes": 2})
    assert hierarch.load(made) is made
    assert hierarch.loads(hierarch.dump(made)) == made


def test_names_are_text_in_one_line():
    assert spec(name="Swin-T / 224 ü 模型").name == "Swin-T / 224 ü 模型"
    for name in ("", "two\nlines", "\x1b[31mred", "x" * 201):
        with pytest.raises(SpecError, match="name: should"):
            spec(name=name)


def test_the_papers_networks_and_its_ablations_are_presets():
    names = set(hierarch.presets())
    assert names >= PAPER_PRESETS
    assert {name for name in names if "/" not in name} == PAPER_PRESETS
    families = collections.Counter(name.partition("/")[0] for name in names - PAPER_PRESETS)
    assert families["ablations"] >= 8
    assert {"swin_v2", "convnext", "metaformer", "mlp", "vit"} <= families.keys()


@pytest.mark.parametrize("preset", hierarch.presets())
def test_a_preset_is_named_after_its_file_and_dumps_to_an_equal_spec(preset, tmp_path):
    made = hierarch.load(preset)
    assert made.name == preset.rpartition("/")[2]
    text = hierarch.dump(made, tmp_path / "dumped.yaml")
    assert hierarch.load(tmp_path / "dumped.yaml") == hierarch.loads(text) == made


def test_dump_leaves_out_defaults_and_writes_a_line_for_each_entry():
    text = hierarch.dump(spec(mixer=["pooling", {"type": "pooling", "kernel_size": 5}]))
    assert text.splitlines() == [
        "mixer:",
        "  - pooling",
        "  - {type: pooling, kernel_size: 5}",
        "stages:",
        "  - {dim: 32, depth: 1}",
        "  - {dim: 64, depth: 2}",
        "  - {dim: 128, depth: 3}",
    ]


@settings(max_examples=100, deadline=None)
@given(backbone_specs())
def test_any_spec_dumps_to_an_equal_one(made):
    assert hierarch.loads(hierarch.dump(made)) == made
    assert hierarch.load(made.to_data()) == made
    assert hash(made) == hash(hierarch.load(made.to_data()))
