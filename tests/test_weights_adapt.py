"""Checkpoints of another window, resolution, head or image, in wrappers, damaged, or huge."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, perturb, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torchvision.models import resnet18

import hierarch
from hierarch import WeightsError

HEAD = {"num_classes": 5}


def network(window=4, **fields):
    regular = {"type": "window_attention", "head_dim": 4, "window_size": window}
    cycle = [regular, regular | {"shift_size": window // 2}]
    return tiny(input_size=64, **{"head": HEAD, **fields}) | {"mixer": cycle}


@pytest.fixture(scope="module")
def trained():
    return perturb(hierarch.build(network()), seed=1)


def rendered(report):
    console = Console(record=True, width=100)
    console.print(report)
    return console.export_text()


# made to fit, and reported


@pytest.mark.parametrize("layout", ["hierarch", "official", "timm", "torchvision", "huggingface"])
def test_a_table_is_resized_to_another_window(trained, layout):
    model = hierarch.build(network(6))
    report = hierarch.load_weights(model, hierarch.export_weights(trained, layout=layout))
    name = "stages.1.blocks.2.mixer.relative_position_bias_table"
    table = trained.state_dict()[name].T.reshape(1, 4, 7, 7)
    wanted = F.interpolate(table, size=(11, 11), mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.state_dict()[name], wanted.reshape(4, 121).T)
    assert len(report.resampled) == 7
    assert str(report.resampled[0]).endswith("relative_position_bias_table: 49x2 to 121x2, bicubic")
    assert set(report.loaded) == model.state_dict().keys()
    assert "resampled" in rendered(report)


def test_swin_v2_fits_another_window_as_it_is():
    cycle = [{"type": "cosine_window_attention", "head_dim": 4, "window_size": 4}]
    spec = network() | {"mixer": cycle}
    trained = perturb(hierarch.build(spec))
    model = hierarch.build(spec | {"mixer": [cycle[0] | {"window_size": 6}]})
    assert hierarch.load_weights(model, trained.state_dict()).resampled == ()


def test_a_position_embedding_is_resized():
    def spec(grid):
        return network(position_embedding={"type": "absolute", "grid": grid})

    trained = perturb(hierarch.build(spec(16)))
    model = hierarch.build(spec([20, 12]))
    report = hierarch.load_weights(model, hierarch.export_weights(trained, layout="official"))
    table = trained.position_embedding.table.permute(0, 3, 1, 2)
    wanted = F.interpolate(table, size=(20, 12), mode="bicubic", align_corners=False)
    found = model.position_embedding.table
    torch.testing.assert_close(found, wanted.permute(0, 2, 3, 1), rtol=0, atol=1e-6)
    assert [r.name for r in report.resampled] == ["position_embedding.table"]


@pytest.mark.parametrize("in_chans", [1, 2, 4, 6])
def test_another_number_of_image_channels_keeps_what_gray_gives(trained, in_chans):
    model = hierarch.build(network(stem={"type": "patch_embed", "in_chans": in_chans})).eval()
    report = hierarch.load_weights(model, trained.state_dict())
    assert [r.name for r in report.resampled] == ["stem.proj.weight"]
    gray = noise(1, 1, 64, 64)
    if in_chans == 1:
        found, wanted = model(gray), trained(gray.expand(-1, 3, -1, -1))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    weight = model.stem.proj.weight.sum(1)
    if in_chans in (1, 6):
        torch.testing.assert_close(weight, trained.stem.proj.weight.sum(1))


@pytest.mark.parametrize("classes", [0, 3])
def test_another_head_is_asked_for(trained, classes):
    state = {n: t for n, t in trained.state_dict().items() if not n.startswith("head.")}
    if classes:
        state |= {"head.fc.weight": torch.ones(classes, 24), "head.fc.bias": torch.ones(classes)}
    model = perturb(hierarch.build(network()), seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="new_head=True"):
        hierarch.load_weights(model, state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    report = hierarch.load_weights(model, state, new_head=True)
    assert set(report.initialized) == {"head.fc.weight", "head.fc.bias"}
    assert set(report.ignored) == ({"head.fc.weight", "head.fc.bias"} if classes else set())
    for name, value in model.state_dict().items():
        kept = before if name.startswith("head.") else trained.state_dict()
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_reported(trained, dtype):
    model = hierarch.build(network())
    state = {name: value.to(dtype) for name, value in trained.state_dict().items()}
    report = hierarch.load_weights(model, state)
    assert report.dtypes == (str(dtype).removeprefix("torch."),)
    assert torch.equal(model.norm.weight, state["norm.weight"].float())


# wrappers


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "encoder.", "module.model.backbone."])
@pytest.mark.parametrize("layout", ["official", "timm", "torchvision", "huggingface", "hierarch"])
def test_what_trainers_put_around_it_is_taken_off(trained, prefix, layout):
    state = hierarch.export_weights(trained, layout=layout)
    wrapped = {prefix + name: value for name, value in state.items()}
    wrapped |= {"neck.weight": torch.ones(1), "decode_head.bias": torch.ones(1)}
    model = hierarch.build(network())
    checkpoint = {"epoch": 3, "optimizer": {"state": {}}, "state_dict": wrapped}
    report = hierarch.load_weights(model, checkpoint)
    assert report.layout == layout
    assert {"neck.weight", "decode_head.bias"} <= set(report.ignored)
    assert all(torch.equal(v, trained.state_dict()[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize("container", ["model", "state_dict", "model_ema", "module"])
def test_containers(trained, container):
    model = hierarch.build(network())
    hierarch.load_weights(model, {container: trained.state_dict(), "config": {"lr": 0.1}})
    assert torch.equal(model.norm.weight, trained.norm.weight)


def test_simmims_names():
    spec = tiny("cosine_window_attention", input_size=64, block="post_norm")
    spec |= {"output_norm": False, "downsample": {"type": "patch_merging", "norm_last": True}}
    trained = perturb(hierarch.build(spec))
    state = hierarch.export_weights(trained, layout="official")
    renamed = {f"encoder.{n.replace('cpb_mlp', 'rpe_mlp')}": t for n, t in state.items()}
    renamed |= {"encoder.mask_token": torch.zeros(1, 1, 8), "decoder.0.weight": torch.zeros(3)}
    model = hierarch.build(spec)
    report = hierarch.load_weights(model, renamed)
    assert set(report.loaded) == model.state_dict().keys()
    assert {"encoder.mask_token", "decoder.0.weight"} <= set(report.ignored)


# refused, with the model as it was


def refused(model, state, **options):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        hierarch.load_weights(model, state, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    return message


@pytest.mark.parametrize(
    "other",
    [
        network(mlp_ratio=3),
        network(stages=[{"dim": 8, "depth": 2}, {"dim": 16, "depth": 3}, {"dim": 24, "depth": 4}]),
        network(stages=[{"dim": 8, "depth": 2}, {"dim": 16, "depth": 3}]),
        network(stages=[{"dim": 16, "depth": 2}, {"dim": 16, "depth": 3}, {"dim": 24, "depth": 2}]),
        tiny("window_mlp", input_size=64, head=HEAD),
        tiny("cosine_window_attention", input_size=64, head=HEAD),
    ],
    ids=["mlp_ratio", "deeper", "fewer stages", "wider", "swin mlp", "swin v2"],
)
@pytest.mark.parametrize("layout", ["official", "hierarch"])
def test_another_network_is_refused(other, layout):
    state = hierarch.export_weights(hierarch.build(other), layout=layout)
    model = hierarch.build(network())
    assert "should have shape" in (said := refused(model, state)) or "does not fit tiny" in said


def test_resnet_is_refused():
    state = resnet18().state_dict()
    assert "which layout? The keys fit no layout of" in refused(hierarch.build(network()), state)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_one_key_that_is_renamed_or_dropped_is_named(data):
    trained = hierarch.build(network())
    state = dict(hierarch.export_weights(trained, layout="timm"))
    name = data.draw(st.sampled_from([n for n in state if ".blocks." in n or n.startswith("norm")]))
    value = state.pop(name)
    if data.draw(st.booleans()):
        state[name + "x"] = value
    assert name in refused(hierarch.build(network()), state)


def test_huge_and_hostile_keys_stay_out_of_what_is_shown(trained):
    hostile = ["x" * 1_000_000, "stem.proj.weight\x1b[31m\n" + "y" * 500, "\n\n"]
    others = {name: torch.ones(1) for name in hostile}
    report = hierarch.load_weights(hierarch.build(network()), trained.state_dict() | others)
    assert set(report.ignored) == {*hostile}
    assert "\x1b" not in rendered(report)
    assert len(rendered(report)) < 2000
    assert "\x1b" not in refused(hierarch.build(network()), others)


@pytest.mark.parametrize("shape", [(), (0,), (0, 0), (24, 0), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("name", ["norm.weight", "stem.proj.weight"])
@pytest.mark.parametrize("layout", ["hierarch", "huggingface"])
def test_odd_shapes(trained, shape, name, layout):
    for qkv in ("q_proj", "layernorm_after", "relative_position_bias_table"):
        state = dict(hierarch.export_weights(trained, layout=layout))
        wanted = name if layout == "hierarch" else next(n for n in state if qkv in n)
        state[wanted] = torch.zeros(shape)
        refused(hierarch.build(network()), state)
