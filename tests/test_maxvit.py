"""MaxViT: the published sizes, and timm's networks with the weights from TensorFlow."""

import pytest
import timm
import torch
from helpers import noise, perturb
from oracles import difference, oracle, small
from timm.layers import RelPosBiasTf

import hierarch
from hierarch import engine
from hierarch.complexity import measure
from hierarch.spec.params import params
from hierarch.weights.layout import FLIPPED_BIAS_PER_OFFSET

SIZES = {  # parameters in millions and GMACs at 224, as the paper gives them
    "maxvit_tiny": (31, 5.6),
    "maxvit_small": (69, 11.7),
    "maxvit_base": (120, 23.4),
    "maxvit_large": (212, 43.9),
}
PRESETS = [f"maxvit/{name}" for name in SIZES]
EXACT = 1e-12


def built_small(preset, **fields):
    spec, arguments = small(preset)
    ours = perturb(hierarch.build(spec, **fields)).double()
    return ours, oracle(preset).build(**arguments).double()


def images(*size):
    return noise(2, 3, *size, dtype=torch.float64)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_papers(name):
    report = measure(f"maxvit/{name}", [224])
    assert report.sizes[0].macs == report.sizes[0].claimed_macs
    millions, gmacs = SIZES[name]
    assert report.params / 1e6 == pytest.approx(millions, abs=0.6)
    assert report.sizes[0].macs / 1e9 == pytest.approx(gmacs, rel=0.03)
    assert report.verdict == "linear"


@pytest.mark.parametrize("preset", PRESETS[:2])
@pytest.mark.parametrize("size", [(224, 224), (64, 64), (97, 131), (250, 33)])
def test_claims_are_counts_to_the_unit(preset, size):
    spec = hierarch.load(preset)
    report = measure(spec, [size])
    [cost] = report.sizes
    assert (cost.macs, report.params) == (cost.claimed_macs, params(spec))
    for stage in cost.stages:
        assert stage.parts == stage.claimed_parts


@pytest.mark.parametrize("preset", PRESETS)
def test_a_stage_is_its_downsampling_and_blocks_in_threes(preset):
    spec = hierarch.load(preset)
    for stage in spec.plan():
        assert stage.downsample.type == "mbconv"
        types = [mixer.type for mixer in stage.mixers]
        assert [*types, "mbconv"] == ["window_attention", "grid_attention", "mbconv"] * (
            (stage.depth + 1) // 3
        )


@pytest.mark.parametrize("preset", PRESETS[:2])
@pytest.mark.parametrize("size", [(448, 224), (224, 672)])
def test_timm_computes_the_same_at_other_sizes_that_its_windows_divide(preset, size):
    ours, theirs = built_small(preset)
    assert difference(ours, theirs, images(*size)) < EXACT


def test_sizes_that_windows_do_not_divide_are_padded():
    ours, theirs = built_small("maxvit/maxvit_tiny")
    assert ours(images(97, 230)).isfinite().all()
    with pytest.raises(AssertionError, match="divisible by window"):
        theirs(images(97, 230))


@pytest.mark.parametrize("field", ["norm", "activation", "stem", "downsample", "head"])
def test_a_part_that_is_a_little_different_would_show(field):
    spec = small("maxvit/maxvit_tiny")[0]
    data = spec.to_data()
    if field == "norm":
        wrong = ["layer_norm", "layer_norm", "batch_norm"]
    elif field == "activation":
        wrong = "gelu"
    elif field == "stem":
        wrong = data["stem"] | {"padding": "half"}
    elif field == "head":
        wrong = data["head"] | {"activation": "gelu"}
    else:
        wrong = data["downsample"] | {"norm": "batch_norm"}
    fields = {field: wrong}
    if field == "downsample":
        first = data["stages"][0] | {"downsample": wrong}
        fields["stages"] = [first, *data["stages"][1:]]
    ours, theirs = built_small("maxvit/maxvit_tiny", **fields)
    assert difference(ours, theirs, images(224, 224)) > 1e5 * EXACT


def test_the_layout_is_recognized_and_written():
    ours, theirs = built_small("maxvit/maxvit_small")
    perturb(theirs, seed=3)
    report = hierarch.load_weights(ours, theirs.state_dict())
    assert (report.layout, report.network) == ("timm", "maxvit")
    assert report.initialized == report.resampled == ()
    assert all(name.endswith("num_batches_tracked") for name in report.ignored)
    x = images(224, 224)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)
    written = hierarch.export_weights(ours, layout="timm")
    for name, tensor in theirs.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(written[name], tensor), name


def test_the_bias_is_that_of_tensorflow():
    module = RelPosBiasTf((3, 4), num_heads=2)
    mixer = {"type": "window_attention", "num_heads": 2, "window_size": [3, 4]}
    ours = hierarch.load({"mixer": mixer, "stages": [{"dim": 8, "depth": 1}]}).plan()[0].mixers[0]
    attention = ours.build(8)
    with torch.no_grad():
        table = module.relative_position_bias_table.flip(1, 2).permute(1, 2, 0).reshape(-1, 2)
        attention.relative_position_bias_table.copy_(table)
    torch.testing.assert_close(attention.bias((3, 4))[0], module.get_bias())
    square = noise(2, 5, 5)
    there_and_back = FLIPPED_BIAS_PER_OFFSET.to_theirs(FLIPPED_BIAS_PER_OFFSET.to_ours([square]))
    assert torch.equal(there_and_back[0], square)


def test_a_network_is_inferred_from_its_weights():
    for preset, stem_dim in (("maxvit/maxvit_tiny", None), ("maxvit/maxvit_small", 16)):
        wanted, arguments = small(preset)
        theirs = perturb(oracle(preset).build(**arguments))
        found = hierarch.from_checkpoint(theirs.state_dict())
        assert found.spec.stem_dim == stem_dim
        assert found.spec.plan()[2].depth == wanted.plan()[2].depth
        x = images(224, 224).float()
        torch.testing.assert_close(found(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_timms_own_maxvits_are_not_taken_for_it():
    theirs = timm.create_model("test_maxvit")
    with pytest.raises(hierarch.WeightsError, match="which layout"):
        hierarch.load_weights(hierarch.build("maxvit/maxvit_tiny"), theirs.state_dict())


def test_gradients_are_the_same_with_the_engine():
    spec = small("maxvit/maxvit_tiny")[0]
    model = perturb(hierarch.build(spec, drop_path_rate=0)).double().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def gradients():
        torch.manual_seed(0)
        model.load_state_dict(state)
        model.zero_grad()
        model(images(97, 64)).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    found = gradients()
    with engine.disabled():
        wanted = gradients()
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert all(gradient.abs().sum() > 0 for gradient in found)
