"""The claim of parameters is what the built network has, to the unit."""

import pytest
import torch
from hypothesis import given, settings
from strategies import backbone_specs

import hierarch
from hierarch.spec.params import head_params, params, stage_params, stem_params
from hierarch.spec.parts import Part
from hierarch.spec.registry import get, names


def built(spec):
    with torch.device("meta"):
        return hierarch.build(spec)


def held(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("preset", hierarch.presets())
def test_every_preset_has_the_parameters_that_are_claimed(preset):
    spec = hierarch.load(preset)
    model, plan = built(spec), spec.plan()
    assert stem_params(spec, dim=plan[0].in_dim) == held(
        model.stem, model.position_embedding, model.extra_tokens
    )
    assert [stage_params(stage) for stage in plan] == [held(stage) for stage in model.stages]
    assert head_params(spec, plan[-1]) == held(model.norm, model.head)
    assert params(spec) == held(model)


@settings(deadline=None)
@given(backbone_specs())
def test_any_network_has_the_parameters_that_are_claimed(spec):
    assert params(spec) == held(built(spec))


@pytest.mark.parametrize("kind", ["mixer", "block", "norm", "activation", "stem", "downsample"])
def test_every_built_in_part_has_a_formula_of_its_own(kind):
    """What another package's part lacks is counted on its module, which is slow."""
    for name in names(kind):
        cls = get(kind, name)
        if cls.__module__.startswith("hierarch."):
            owner = next(base for base in cls.__mro__ if "params" in vars(base))
            assert owner.__module__ != Part.__module__, name


class Counted:
    """The formulas that a part gets where it has none."""

    @staticmethod
    def of(part):
        cls = type(part)
        base = next(
            b for b in cls.__mro__ if b.__module__ == Part.__module__ and "params" in vars(b)
        )
        return base.params.__get__(part)


@settings(deadline=None)
@given(backbone_specs())
def test_a_part_without_a_formula_is_counted_to_the_same(spec):
    for stage in spec.plan():
        dim = stage.dim
        for block in stage.blocks:
            assert Counted.of(block.mixer)(dim=dim) == block.mixer.params(dim=dim)
            assert Counted.of(block.spec)(block) == block.spec.params(block)
            assert Counted.of(block.norm)(dim=dim) == block.norm.params(dim=dim)
            assert Counted.of(block.activation)() == block.activation.params()
        assert Counted.of(spec.stem)(dim=dim) == spec.stem.params(dim=dim)
        if down := stage.downsample:
            assert Counted.of(down)(in_dim=8, dim=dim) == down.params(in_dim=8, dim=dim)
