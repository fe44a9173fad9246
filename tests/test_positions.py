"""Position embeddings: what they add, where, and the networks and papers that they are from."""

import itertools
import math

import pytest
import torch
from helpers import noise, perturb

import hierarch
from hierarch import engine
from hierarch.positions.sinusoidal import sinusoids
from hierarch.spec.params import params
from hierarch.spec.registry import names

EVERY = ["conditional", "sinusoidal", {"type": "absolute", "grid": [5, 7]}]


def network(**fields):
    mixer = [{"type": "window_attention", "head_dim": 4, "shift_size": shift} for shift in (0, 3)]
    stages = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 2}]
    head = {"num_classes": 5}
    return hierarch.load({"mixer": mixer, "stages": stages, "head": head, **fields})


def test_every_position_embedding_is_tested():
    tested = {one if isinstance(one, str) else one["type"] for one in EVERY}
    assert tested == set(names("position"))


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("position", EVERY, ids=str)
def test_claims_are_counts_and_the_engine_agrees_wherever_it_stands(position, after):
    spec = network(position=position, position_after=after, position_embedding=position)
    report = hierarch.measure(spec, sizes=[32, (45, 70)])
    assert (report.verdict, report.params) == ("linear", params(spec))
    model = perturb(hierarch.build(spec).eval())
    images = noise(3, 3, 45, 70)
    with torch.no_grad():
        logits = model(images)
        with engine.disabled():
            torch.testing.assert_close(logits, model(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_it_stands_after_as_many_blocks_as_the_spec_says(after):
    spec = network(position="conditional", position_after=after)
    stage = perturb(hierarch.build(spec).eval().double()).stages[1]
    x = noise(2, 9, 6, 8).double()
    wanted = stage.downsample(x)
    for index, block in enumerate([*stage.blocks, None]):
        if index == after:
            wanted = stage.position(wanted)
        wanted = block(wanted) if block else wanted
    torch.testing.assert_close(stage(x), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("per", ["block", "stage"])
def test_checkpointing_recomputes_it_too(per):
    model = perturb(hierarch.build(network(position="conditional", position_after=1)).double())
    images = noise(2, 3, 32, 32).double()
    model(images).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing(per=per)
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name])


def within(inner, **fields):
    return network(block={"type": "pre_norm", "residual_scale": 0.5, "position": inner}, **fields)


@pytest.mark.parametrize("position", EVERY, ids=str)
def test_claims_are_counts_of_positions_inside_of_blocks(position):
    spec = within(position, position="conditional")
    report = hierarch.measure(spec, sizes=[32, (45, 70)])
    assert (report.verdict, report.params) == ("linear", params(spec))
    for size in report.sizes:
        assert [s.parts for s in size.stages] == [s.claimed_parts for s in size.stages]


def test_one_stands_before_each_half_of_a_block():
    spec = within("conditional")
    block = perturb(hierarch.build(spec).eval().double()).stages[1].blocks[1]
    x = noise(2, 9, 6, 16).double()
    with torch.no_grad():
        first = block.position1(x)
        first = block.residual_scale1(first) + block.mixer(block.norm1(first))
        second = block.position2(first)
        wanted = block.residual_scale2(second) + block.mlp(block.norm2(second))
        torch.testing.assert_close(block(x), wanted, rtol=0, atol=1e-12)
    alone = hierarch.build(within("conditional", channel_mixer="none"))
    assert not hasattr(alone.stages[0].blocks[0], "position2")
    assert sum(p.numel() for p in alone.parameters()) == params(alone.spec)


def test_a_table_inside_of_blocks_is_not_decayed():
    model = hierarch.build(within(EVERY[2], mixer="pooling"))
    tables = {name for name, _ in model.named_parameters() if name.endswith(".table")}
    assert model.no_weight_decay() == tables
    assert len(tables) == 8


def test_a_width_that_it_does_not_support_is_a_mistake():
    with pytest.raises(hierarch.SpecError, match=r"dim=18 is not divisible by 4.*\(pre_norm\)"):
        within("sinusoidal", mixer="pooling", stages=[{"dim": 18, "depth": 1}])


def test_conditional_is_twins():
    from timm.models.twins import PosConv

    theirs = PosConv(8, 8).double()
    ours = hierarch.build(network(position="conditional")).double().stages[0].position
    theirs.load_state_dict(
        {name.replace("conv", "proj.0"): weight for name, weight in ours.state_dict().items()}
    )
    x = noise(2, 5, 7, 8).double()
    wanted = theirs(x.flatten(1, 2), (5, 7)).view(x.shape)
    torch.testing.assert_close(ours(x), wanted, rtol=0, atol=1e-12)


def test_sinusoidal_is_its_formula():
    found = sinusoids(5, 7, 16, 1000.0, device=torch.device("cpu"))
    places = itertools.product(range(5), range(7))
    for (row, column), vector in zip(places, found.flatten(0, 1), strict=True):
        waves = [1000 ** (-i / 4) for i in range(4)]
        functions = ((math.sin, column), (math.cos, column), (math.sin, row), (math.cos, row))
        wanted = [f(at * wave) for f, at in functions for wave in waves]
        assert vector.tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_table_of_a_stage_is_not_decayed():
    model = hierarch.build(network(position=EVERY[2], mixer="pooling"))
    assert model.no_weight_decay() == {"stages.0.position.table", "stages.1.position.table"}
