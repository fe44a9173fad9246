"""Swapping the token mixer: fields that carry over, and every swapped network works."""

import functools
from itertools import cycle

import pytest
import torch

import hierarch
from hierarch import SpecError, swap
from hierarch.spec.registry import names
from hierarch.spec.swap import explain

MIXERS = {name: {"type": name} for name in names("mixer")}
MIXERS["token_mlp"] |= {"grid": 6, "hidden_dim": 8}
MIXERS["random_mixing"] |= {"grid": 6}
MIXERS["global_filter"] |= {"grid": 6}
MIXERS["shift"] |= {"n_div": 4}  # some networks here are narrower than its 12
SWIN = ["swin_tiny", "swin_mixer_tiny_d24"]
# a network for each family, since its others differ in width and depth alone
OTHERS = [
    *("swin_base_384", "swin_tiny_global_attention", "swin_tiny_absolute_position"),
    *("swin_v2_tiny_window8_256", "swin_v2_base_window12to16_192to256", "convnext_tiny"),
    *("poolformer_s12", "poolformer_v2_s12", "identityformer_s12", "convformer_s18"),
    *("caformer_s18", "vit_tiny_patch16", "mlp_mixer_base_patch16", "resmlp_s12"),
    *("convnext_v2_atto", "pvt_v2_b0", "pvt_v2_b2_linear", "twins_svt_small"),
    *("focalnet_tiny_srf", "davit_tiny", "inception_next_atto", "dinat_mini"),
    *("van_b0", "cswin_tiny"),
    "maxvit_tiny",
]
PRESETS = [*SWIN, *OTHERS]
PLACES = {"one": (2,), "some": (1, 3), "all": None}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Uses one thread, which is faster for small tensors, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mixers(spec):
    """Each stage's mixers, block by block."""
    return [stage.mixers for stage in spec.plan()]


def types(spec):
    return [{mixer.type for mixer in blocks} for blocks in mixers(spec)]


def one_stage(mixer, dim=64):
    return hierarch.load({"stages": [{"dim": dim, "depth": 4}], "mixer": mixer})


def test_a_swap_in_all_stages_replaces_the_cycle_at_the_top():
    swapped = swap("swin_tiny", "window_mlp")
    assert types(swapped) == [{"window_mlp"}] * 4
    assert all(stage.mixer is None for stage in swapped.stages)


def test_a_swap_in_some_stages_leaves_the_others_as_they_are():
    source, swapped = hierarch.load("swin_tiny"), swap("swin_tiny", "pooling", stages=[2, 3])
    assert types(swapped) == [{"window_attention"}] * 2 + [{"pooling"}] * 2
    assert swapped.mixer == source.mixer
    assert swapped.stages[:2] == source.stages[:2]


def test_a_swap_stage_by_stage_is_a_swap_in_all():
    swapped = swap("swin_tiny", "window_mlp", stages=[0, 1, 2, 3])
    assert mixers(swapped) == mixers(swap("swin_tiny", "window_mlp"))


def test_a_swap_in_all_stages_reaches_those_that_have_mixers_of_their_own():
    mixed = swap("swin_tiny", "pooling", stages=[1])
    assert types(swap(mixed, "depthwise_conv")) == [{"depthwise_conv"}] * 4


def test_nothing_but_the_mixer_changes():
    source, swapped = hierarch.load("swin_base"), swap("swin_base", "pooling")
    assert swapped.model_copy(update={"mixer": source.mixer}) == source
    assert swap(source, "pooling", stages=[]) == source


def test_a_shifted_pair_stays_a_shifted_pair_and_fields_carry_over():
    pair = {"type": "window_attention", "num_heads": 4, "window_size": [5, 6], "small_map": "clamp"}
    swapped = swap(one_stage([pair, pair | {"shift_size": [2, 3]}]), "window_mlp")
    assert [(m.num_heads, m.window_size, m.shift_size) for m in swapped.mixer] == [
        (4, (5, 6), 0),
        (4, (5, 6), (2, 3)),
    ]
    assert {mixer.small_map for mixer in swapped.mixer} == {"clamp"}


def test_a_swap_there_and_back_is_no_change():
    for preset in ("swin_tiny", "swin_base_384"):
        there = swap(preset, "window_mlp", stages=[0, 2])
        assert mixers(swap(there, "window_attention")) == mixers(hierarch.load(preset))


def test_a_cycle_of_one_mixer_alone_becomes_one_entry():
    assert [mixer.to_data() for mixer in swap("swin_tiny", "pooling").mixer] == ["pooling"]
    assert len(swap("swin_tiny", "global_attention").mixer) == 1
    assert len(swap("swin_tiny", "pooling", stages=[1]).stages[1].mixer) == 1


def test_fields_are_set_with_a_mapping_or_with_a_mixers_spec():
    by_mapping = swap("swin_tiny", {"type": "window_mlp", "window_size": 8})
    assert [(m.window_size, m.shift_size, m.head_dim) for m in by_mapping.mixer] == [
        (8, 0, 32),
        (8, 3, 32),
    ]
    mixer = hierarch.load("swin_mixer_tiny_d24").mixer[1]
    assert (mixer.window_size, mixer.shift_size, mixer.head_dim) == (8, 4, 24)
    assert swap("swin_tiny", mixer).mixer == (mixer,)


def test_num_heads_takes_the_place_of_a_head_dim_that_would_carry_over():
    swapped = swap("swin_tiny", {"type": "global_attention", "num_heads": 3})
    assert (swapped.mixer[0].num_heads, swapped.mixer[0].head_dim) == (3, None)


def test_heads_are_filled_in_where_the_old_mixer_had_none():
    swapped = swap(one_stage("pooling", dim=80), "window_attention")
    assert swapped.mixer[0].head_dim == 16
    assert swapped.mixer[0].window_size == 7


@pytest.mark.parametrize(
    ("mixer", "stages", "expected"),
    [
        ("window_atention", None, "unknown mixer 'window_atention', did you mean 'window_atten"),
        ("", None, "unknown mixer '', known: axial_shift, "),
        ({"window_size": 7}, None, "the new mixer has no type; known: axial_shift, "),
        ({"type": 7}, None, "the new mixer has no type; known: axial_shift, "),
        ({"type": "pooling", "kernl": 3}, None, "mixer[0].kernl: unknown key 'kernl', did you"),
        ("pooling", [4], "stages [4]: swin_tiny has stages 0 to 3"),
        ("pooling", [-1], "stages [-1]: swin_tiny has stages 0 to 3"),
        (
            {"type": "window_mlp", "head_dim": 32, "num_heads": 3},
            None,
            "mixer[0]: give head_dim or num_heads; both given",
        ),
        (
            {"type": "window_mlp", "head_dim": 7},
            [1],
            "stages[1].dim: dim=192 is not divisible by head_dim=7 (window_mlp)",
        ),
        (
            {"type": "window_mlp", "window_size": 3},
            None,
            "mixer[1].shift_size: should be smaller than window_size=3 on 2 axes, got 3",
        ),
    ],
)
def test_an_invalid_swap_is_refused(mixer, stages, expected):
    with pytest.raises(SpecError) as caught:
        swap("swin_tiny", mixer, stages)
    assert str(caught.value).startswith(expected)


def test_the_origin_of_each_field_is_reported():
    pair = {"type": "window_attention", "head_dim": 8, "qkv_bias": False}
    source = one_stage([pair, pair | {"shift_size": 3}])
    assert explain(source, {"type": "window_mlp", "window_size": 8}).notes == (
        "given: window_size=8",
        "carried over: head_dim=8, shift_size=0 / 3, small_map=pad",
        "dropped: qkv_bias, position_bias, shift_mask",
    )
    assert explain(source, "pooling").notes == (
        "at its default: kernel_size=3",
        "dropped: head_dim, window_size, shift_size, small_map, qkv_bias, position_bias, "
        "shift_mask",
        "one entry for a cycle of: 2",
    )


def test_defaults_that_are_parts_and_fields_without_default_are_reported():
    grid = {"type": "token_mlp", "grid": 7}
    assert explain(one_stage("pooling"), grid).notes == (
        "given: grid=7",
        "at its default: activation=gelu",
        "dropped: kernel_size",
    )
    source = one_stage(grid | {"activation": "star_relu"})
    assert explain(source, "separable_conv").notes == (
        "carried over: activation=star_relu",
        "at its default: kernel_size=7, expand_ratio=2, bias=false",
        "dropped: grid",
    )
    with pytest.raises(SpecError, match=r"^mixer\[0\]\.grid: is missing$"):
        swap("swin_tiny", "token_mlp")


def shrunk(spec):
    """The same network with few channels and blocks, so that it runs quickly."""

    def small(mixer):
        fields = {name: getattr(mixer, name) for name in mixer.model_fields_set}
        if "head_dim" in type(mixer).model_fields:
            fields["head_dim"] = 4
            fields.pop("num_heads", None)
        if mixer.type == "token_mlp":
            fields["grid"] = 6
        return fields

    def fields(mixer):
        return {"mixer": [small(entry) for entry in mixer]} if mixer else {}

    stages = [
        stage.to_data() | {"dim": 8 * (i + 1), "depth": min(stage.depth, 2), **fields(stage.mixer)}
        for i, stage in enumerate(spec.stages)
    ]
    grid = spec.position_embedding and {"type": "absolute", "grid": 6}
    head = spec.head.to_data() | {"num_classes": 3}
    rest = {"name": "small", "input_size": 64, "drop_path_rate": 0.1, "head": head}
    data = spec.to_data() | fields(spec.mixer) | {"stages": stages, "position_embedding": grid}
    return hierarch.load(data | rest)


@functools.cache  # presets that differ in width and depth alone are the same once small
def works(spec):
    """Checks a training step, with a gradient for each parameter, and the count."""
    torch.manual_seed(0)
    model = hierarch.build(spec)
    logits = model(torch.randn(2, 3, 44, 60))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    return counts(spec, (44, 60))


def is_quadratic(mixer):
    """True for mixers in which every token sees a number of tokens that grows with the map, and
    for one whose transform takes more steps."""
    grows = {
        **dict.fromkeys(["global_attention", "cross_window_attention", "random_mixing"], True),
        "global_filter": True,
        "token_mlp": mixer.type == "token_mlp" and mixer.hidden_dim is None,
        "reduced_attention": mixer.type == "reduced_attention" and mixer.pool_size is None,
    }
    return grows.get(mixer.type, False)


def counts(spec, size):
    report = hierarch.measure(spec, sizes=[size])
    [measured] = report.sizes
    assert measured.macs == measured.claimed_macs
    assert measured.parts == measured.claimed_parts
    quadratic = any(is_quadratic(mixer) for blocks in mixers(spec) for mixer in blocks)
    assert report.verdict == ("superlinear" if quadratic else "linear")
    return True


def places(preset):
    """The stages to swap in, without those that a network of one stage does not have."""
    several = len(hierarch.load(preset).stages) > 1
    return [place for place, stages in PLACES.items() if several or stages is None]


def test_every_family_of_presets_and_every_block_is_tested():
    families = {hierarch.spec.load.find(name).parent for name in hierarch.presets(axes=2)}
    assert {hierarch.spec.load.find(name).parent for name in PRESETS} == families
    blocks = {
        block.spec.type
        for name in PRESETS
        for stage in hierarch.load(name).plan()
        for block in stage.blocks
    }
    assert blocks | {"parallel"} == set(names("block"))  # whose presets have tokens beside the grid


CASES = [
    *((preset, place, mixer) for preset in SWIN for place in PLACES for mixer in MIXERS),
    # each mixer in every fourth of the others, and each of these with every fourth mixer
    *(
        (preset, places(preset)[(i + j) % len(places(preset))], mixer)
        for i, preset in enumerate(OTHERS)
        for j, mixer in enumerate(MIXERS)
        if (i + j) % 4 == 0
    ),
]


@pytest.mark.parametrize(("preset", "place", "mixer"), CASES)
def test_a_swap_in_every_family_to_every_mixer_runs_learns_and_counts(preset, place, mixer):
    swapped = swap(preset, MIXERS[mixer], PLACES[place])
    chosen = range(len(swapped.stages)) if PLACES[place] is None else PLACES[place]
    assert all(types(swapped)[i] == {mixer} for i in chosen)
    assert hierarch.loads(hierarch.dump(swapped)) == swapped
    assert works(shrunk(swapped))


@pytest.mark.parametrize("mixer", [*MIXERS][::4])
def test_a_swap_in_parallel_blocks_runs_learns_and_counts(mixer):
    spec = hierarch.load("parallel_vit_wee_patch16").to_data() | {"extra_tokens": None}
    assert works(shrunk(swap(spec, MIXERS[mixer])))


def test_every_preset_and_every_mixer_counts_at_full_size():
    for i, (preset, mixer) in enumerate(zip(PRESETS, cycle(MIXERS), strict=False)):
        place = places(preset)[i % len(places(preset))]
        assert counts(swap(preset, MIXERS[mixer], PLACES[place]), (224, 240))
