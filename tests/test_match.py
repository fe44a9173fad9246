"""Equal budgets: a swapped network costs what the one before it did, and says how close it came."""

from itertools import pairwise

import pytest
from helpers import tiny
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import backbone_specs, image_sizes

import hierarch
from hierarch import SpecError
from hierarch.bench import latency
from hierarch.spec import match as matching
from hierarch.spec.budget import Macs, Params, spent
from hierarch.spec.claim import claim
from hierarch.spec.grid import per_axis
from hierarch.spec.lattice import REACH, lattices
from hierarch.spec.load import find
from hierarch.spec.match import POINTS, TOLERANCE, match
from hierarch.spec.params import params
from hierarch.spec.registry import get, names
from hierarch.swapping import explain, swap

OF_A_GRID = {"token_mlp", "random_mixing", "global_filter"}
MIXERS = [name for name in names("mixer") if name not in OF_A_GRID]
"""Mixers over a whole map are given its grid. Most cost more at any width than most networks."""
COSTLY = ("global_attention", "reduced_attention")
"""Mixers that cost a narrow network on a fine grid more than all of its budget."""
ISOTROPIC = {name for name in hierarch.presets(axes=2) if len(hierarch.load(name).stages) == 1}
SEARCHED = POINTS + 1_000
"""Points of one lattice: those around the crossing, and the bisection's."""


def matched(source, mixer, stages=None, **options):
    """The match, checked against what the spec that it returns says for itself."""
    spec = hierarch.load(source)
    found = explain(spec, mixer, stages, **options)
    result = found.match
    assert found.spec is result.spec
    assert hierarch.loads(hierarch.dump(found.spec)) == found.spec
    if result.budget == "macs":
        assert result.target == claim(spec, result.size).macs
        assert result.cost == claim(found.spec, result.size).macs
    else:
        assert (result.target, result.cost) == (params(spec), params(found.spec))
    assert bool(result.why) == (abs(result.off) > TOLERANCE)
    return result


# every preset, every mixer


FIRST = {str(find(name).parent): name for name in reversed(hierarch.presets(axes=2))}
"""The first preset of each family, by its folder."""
BUDGETS = [
    *((name, "macs") for name in hierarch.presets(axes=2)),
    *((name, "params") for name in FIRST.values()),
]
"""Every preset in MACs. A family's networks differ in sizes."""


@pytest.mark.parametrize(("preset", "budget"), BUDGETS)
def test_every_preset_keeps_its_budget_with_every_mixer(preset, budget):
    spec = hierarch.load(preset)
    # every mixer for the first network of a family, and for the others every eighth one in turn; of
    # parameters, which are searched alike, every fourth
    step = 4 if budget == "params" else 1 if preset in FIRST.values() else 8
    turn = hierarch.presets(axes=2).index(preset) % step
    for mixer in MIXERS[turn::step]:
        if spec.extra_tokens and get("mixer", mixer).needs_grid:
            with pytest.raises(SpecError, match=f"need no grid; these do: {mixer}"):
                explain(spec, mixer, match=budget)
            continue
        found = matched(spec, mixer, match=budget)
        assert found.visited <= SEARCHED
        if preset not in ISOTROPIC and not (budget == "macs" and mixer in COSTLY):
            assert abs(found.off) <= TOLERANCE, (mixer, found.notes)
        elif found.why:  # with one width there is little choice
            far = "the widths that its parts allow lie too far apart: stage"
            assert found.why.startswith((far, f"the widths, moved by up to x {REACH}, reach from"))
            moving = ["widths", "ratio"] if found.why.startswith(far) else ["depths", "widths"]
            again = matched(spec, mixer, match=budget, move=moving)
            assert abs(again.off) <= TOLERANCE, (mixer, again.notes)


@pytest.mark.parametrize(
    ("preset", "mixer", "stages", "at"),
    [
        ("swin_tiny", "window_mlp", [2, 3], 224),
        ("swin_tiny", "global_attention", None, 160),
        ("swin_mixer_tiny_d24", "window_attention", None, (96, 224)),
        ("convnext_tiny", "neighborhood_attention", [1, 3], 128),
        ("caformer_s18", "separable_conv", None, 224),
        ("vit_tiny_patch16", "pooling", None, 224),
    ],
)
def test_the_budget_is_what_fvcore_counts_too(preset, mixer, stages, at):
    found = matched(preset, mixer, stages, match="macs", at=at)
    before, after = (hierarch.measure(spec, [at]).sizes[0].macs for spec in (preset, found.spec))
    assert (before, after) == (found.target, found.cost)
    assert abs(after / before - 1) <= TOLERANCE


# what moves, and what does not


def test_only_the_stages_that_are_swapped_move():
    found = matched("swin_tiny", "window_mlp", [2, 3], match="macs")
    assert {move.stage for move in found.moves} <= {2, 3}
    assert [stage.dim for stage in found.spec.stages[:2]] == [96, 192]
    assert found.spec.stages[2].dim > 384
    assert {move.field for move in found.moves} == {"dim"}


def test_a_width_that_doubles_still_does_where_that_is_close_enough():
    found = matched("swin_base", "depthwise_conv", match="macs")
    dims = [stage.dim for stage in found.spec.stages]
    assert dims == sorted(dims)
    assert all(b / a == pytest.approx(2, rel=0.1) for a, b in pairwise(dims))
    assert all(dim % 8 == 0 for dim in dims)


def test_a_swap_that_costs_the_same_moves_nothing():
    found = matched("swin_tiny", {"type": "window_attention"}, match="macs")
    assert (found.moves, found.off, found.why) == ((), 0, "")
    assert found.spec == hierarch.swap("swin_tiny", "window_attention")
    assert "moved: nothing" in found.notes[1]


@pytest.mark.parametrize(
    ("move", "fields"), [("widths", {"dim"}), ("depths", {"depth"}), ("ratio", {"mlp_ratio"})]
)
def test_what_may_move_is_the_callers_choice(move, fields):
    found = matched("swin_tiny", "pooling", match="params", move=[move])
    assert {one.field for one in found.moves} == fields
    stages = (hierarch.load("swin_tiny").stages, found.spec.stages)
    for old, new in zip(*stages, strict=True):
        assert (old.dim == new.dim) or move == "widths"
        assert (old.depth == new.depth) or move == "depths"
    assert (found.spec.mlp_ratio != 4) == (move == "ratio")


def test_depths_keep_whole_cycles_of_regular_and_shifted_windows():
    found = matched("swin_small", "window_mlp", match="macs", move=["depths"])
    assert all(stage.depth % 2 == 0 for stage in found.spec.stages)
    odd = hierarch.load(tiny())  # a stage of three blocks has no whole cycles
    moved = matched(odd, "window_mlp", match="macs", at=64, move=["depths"]).spec.stages
    assert all(stage.depth % 2 == 0 for stage in (moved[0], moved[2]))


def test_the_ratio_of_some_stages_is_their_own():
    found = matched("swin_tiny", "pooling", [1], match="macs", move=["ratio"])
    assert found.spec.mlp_ratio == 4
    assert [stage.mlp_ratio is None for stage in found.spec.stages] == [True, False, True, True]


def test_stages_that_are_not_built_do_not_move():
    spec = hierarch.load("swin_tiny").to_data() | {"head": None, "out_indices": [1]}
    found = matched(spec, "pooling", match="macs")
    assert [stage.dim for stage in found.spec.stages[2:]] == [384, 768]
    with pytest.raises(SpecError, match=r"^stages 3: none is built, so that none can move"):
        swap(spec, "pooling", [3], match="macs")


def test_fields_at_their_edges_are_not_left():
    wide = {"stages": [{"dim": 16_384, "depth": 256}], "mixer": "separable_conv", "mlp_ratio": 64}
    for move in (["widths"], ["depths"], ["ratio"], ["ratio", "depths", "widths"]):
        assert matched(wide, "identity", match="macs", at=32, move=move).spec
    narrow = {"stages": [{"dim": 1, "depth": 1}], "mixer": "identity", "mlp_ratio": 1}
    assert matched(narrow, {"type": "separable_conv"}, match="params").spec


# a budget that is not met


def test_a_lattice_that_is_too_coarse_says_which_widths_there_are():
    found = matched("vit_tiny_patch16", "window_attention", match="macs")
    assert found.why == (
        "the widths that its parts allow lie too far apart: stage 0 of 128, 192, 256; "
        "let the depths or the ratio move, too"
    )
    assert found.notes[-1] == f"not within 1%: {found.why}"
    with pytest.warns(UserWarning, match="not within 1%: the widths that its parts allow"):
        spec = swap("vit_tiny_patch16", "window_attention", match="macs")
    assert spec == found.spec


def test_a_budget_out_of_reach_says_what_is_in_reach():
    everything = {"type": "token_mlp", "grid": 56}
    found = matched("swin_tiny", everything, match="macs")
    assert found.why.startswith("the widths, moved by up to x 8, reach from ")
    assert "and the budget is 4,509,194,496: swap fewer stages, or let the depths" in found.why
    assert found.visited < 1_000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"match": "flops"}, "unknown budget 'flops'; known: macs, params, latency"),
        ({"match": ["macs"]}, "unknown budget ['macs']; known: macs, params, latency"),
        ({"match": "params", "at": 224}, "parameters do not depend on the image's size"),
        ({"at": 224}, "a size, and what may move, are for a budget: give match, too"),
        ({"move": ["depths"]}, "a size, and what may move, are for a budget"),
        ({"match": "macs", "at": 0}, "size 0: a side should be an integer from 1 to 65536"),
        ({"match": "macs", "at": (224, 224, 3)}, "size (224, 224, 3): the network has 2 axes"),
        ({"match": "macs", "move": []}, "what may move are widths, depths, ratio, each once"),
        ({"match": "macs", "move": "widths"}, "each once; got 'widths'"),
        ({"match": "macs", "move": ["widths", "heads"]}, "each once; got widths, heads"),
        ({"match": "macs", "move": ["ratio", "ratio"]}, "each once; got ratio, ratio"),
    ],
)
def test_a_budget_that_is_none_is_refused(options, expected):
    with pytest.raises(SpecError) as caught:
        swap("swin_tiny", "pooling", **options)
    assert expected in str(caught.value)


# the search


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=12)
@given(
    backbone_specs(),
    st.sampled_from(["pooling", "window_mlp", "separable_conv", "linear_attention"]),
    st.sampled_from(["macs", "params"]),
    st.permutations(["widths", "depths", "ratio"]),
    st.integers(1, 3),
    image_sizes(),
)
def test_any_network_is_matched_or_says_why(spec, mixer, budget, kinds, count, size):
    built = len(spec.plan())
    assume(built)
    at = {"at": size} if budget == "macs" else {}
    if claim(spec, size).macs == 0:
        return
    move = kinds[:count]
    found = matched(spec, mixer, match=budget, move=move, **at)
    assert found.visited <= 4 * SEARCHED
    allowed = {"widths": "dim", "depths": "depth", "ratio": "mlp_ratio"}
    assert {one.field for one in found.moves} <= {allowed[kind] for kind in move}
    # nearer than, or as near as, what it started from
    start = explain(spec, mixer).spec
    before = claim(start, size).macs if budget == "macs" else params(start)
    assert abs(found.off) <= max(TOLERANCE, abs(before / found.target - 1)) + 1e-12


def test_the_search_is_deterministic():
    once, again = (matched("swin_tiny", "window_mlp", match="macs") for _ in range(2))
    assert once == again


def test_the_best_of_all_points_is_found(monkeypatch):
    """On a lattice that is small enough to look at each of its points."""
    spec = hierarch.load(tiny())
    swapped = hierarch.swap(spec, "window_mlp")
    size = (64, 64)
    budget, target = Macs.of(swapped, size), claim(spec, size).macs
    finest = list(lattices(swapped, budget, stages=range(3), move=["widths"]))[-1]
    everything = [
        (a, b, c)
        for a in finest.axes[0].values
        for b in finest.axes[1].values
        for c in finest.axes[2].values
    ]
    best = min(abs(finest.cost(point) / target - 1) for point in everything)
    found = match(swapped, budget, target, stages=range(3))
    assert best <= abs(found.off) <= max(TOLERANCE, best)
    monkeypatch.setattr(matching, "TOLERANCE", 0)
    exact = match(swapped, budget, target, stages=range(3))
    assert abs(exact.off) == pytest.approx(best, abs=0.002)


@settings(deadline=None, max_examples=30)
@given(backbone_specs(), image_sizes())
def test_a_budget_is_the_claim_in_parts(spec, size):
    plan = spec.plan()
    assert spent(Macs.of(spec, size), plan) == claim(spec, size).macs
    assert spent(Params(spec), plan) == params(spec)


@settings(deadline=None, max_examples=10)
@given(backbone_specs(), st.data())
def test_a_points_cost_is_that_of_the_spec_at_it(spec, data):
    size = per_axis(spec.input_size)
    for budget in (Macs.of(spec, size), Params(spec)):
        kinds = ["widths", "depths", "ratio"]
        for lattice in lattices(spec, budget, stages=range(len(spec.stages)), move=kinds):
            point = tuple(data.draw(st.sampled_from(axis.values)) for axis in lattice.axes)
            at = lattice.at(point)
            expected = claim(at, size).macs if budget.name == "macs" else params(at)
            assert lattice.cost(point) == expected


def test_sixteen_stages_of_many_blocks_are_searched_in_bounded_steps():
    stages = [{"dim": 8 * (i + 1), "depth": 64} for i in range(16)]
    deep = {"stages": stages, "mixer": {"type": "window_attention", "head_dim": 4}}
    found = matched(deep, "pooling", match="params", move=["widths", "ratio"])
    assert found.visited <= 2 * SEARCHED
    assert abs(found.off) <= TOLERANCE


def test_widths_are_whole_heads():
    """The mixer's `check` is all that the search knows of heads."""
    found = matched("swin_tiny", {"type": "linear_attention", "num_heads": 3}, match="params")
    assert all(stage.dim % 24 == 0 for stage in found.spec.stages)


# latency


def test_a_latency_is_matched_by_timing_a_few_specs(monkeypatch):
    monkeypatch.setattr(latency, "ROTATIONS", 1)  # a busy machine takes a minute for all of them
    monkeypatch.setattr(latency, "ROUNDS", 1)
    found = explain(tiny(), "pooling", match="latency", at=32).match
    assert (found.budget, found.size) == ("latency", (32, 32))
    assert found.target > 0
    assert bool(found.why) == (abs(found.off) > TOLERANCE)
    assert found.notes[0].startswith("budget: ")
    assert "ms an image at 32x32; now " in found.notes[0]
