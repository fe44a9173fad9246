"""Reading checkpoints: the layouts, the files, and what is refused with the model unchanged."""

from __future__ import annotations

import pathlib
import pickle
import re

import pytest
import torch
import torchvision
from helpers import noise, perturb, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import hierarch
from hierarch import WeightsError
from hierarch.weights.recognize import DERIVED_BUFFERS

HEAD = {"num_classes": 5}
POSITION = {"position_embedding": {"type": "absolute", "grid": [4, 6]}}


LAYOUTS = ["hierarch", "official", "timm", "torchvision", "huggingface"]
"""Those that have names for a classifier."""


def theirs(model, layout):
    """The model's weights under the names of a layout, without what can be worked out."""
    state = hierarch.export_weights(model, layout=layout)
    return {name: value for name, value in state.items() if not DERIVED_BUFFERS.search(name)}


@pytest.fixture(scope="module")
def trained():
    return perturb(hierarch.build(tiny(input_size=64, head=HEAD)), seed=1)


@pytest.fixture
def model():
    return hierarch.build(tiny(input_size=64, head=HEAD))


def assert_equal(model, other):
    for key, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=0)


def assert_refused(model, source, *messages, **options):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        hierarch.load_weights(model, source, **options)
    for message in messages:
        assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


# what is read


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chosen", ["auto", "named"])
def test_a_layout_is_read_and_told_from_its_keys(model, trained, layout, chosen):
    name = layout if chosen == "named" else "auto"
    report = hierarch.load_weights(model, theirs(trained, layout), layout=name)
    assert report.layout == layout
    assert set(report.loaded) == model.state_dict().keys()
    assert report.initialized == report.ignored == ()
    assert_equal(model, trained)


def test_torchvisions_own_names_are_those_of_the_layout():
    other = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[2, 1], num_heads=[2, 4], window_size=[4, 4],
        num_classes=5,
    )  # fmt: skip
    stages = [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 1}]
    model = hierarch.build(tiny(stages=stages, mlp_ratio=4, head=HEAD))
    report = hierarch.load_weights(model, perturb(other).state_dict())
    assert report.layout == "torchvision"
    assert len(report.ignored) == 3
    images = noise(2, 3, 36, 52)
    torch.testing.assert_close(model.eval()(images), other(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_files(model, trained, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(trained.state_dict(), path)
    else:
        torch.save(trained.state_dict(), path)
    assert hierarch.load_weights(model, str(path)) == hierarch.load_weights(model, path)
    assert_equal(model, trained)


@pytest.mark.parametrize("wrap", [{"model": ...}, {"state_dict": ...}, {"model": ..., "epoch": 3}])
def test_wrappers(model, trained, tmp_path, wrap):
    wrapped = wrap | {key: trained.state_dict() for key in wrap if wrap[key] is ...}
    hierarch.load_weights(model, wrapped)
    assert_equal(model, trained)
    torch.save(wrapped, tmp_path / "weights.pth")
    hierarch.load_weights(hierarch.build(model.spec), tmp_path / "weights.pth")


def test_worked_out_buffers_are_ignored(model, trained):
    buffers = {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
    }
    report = hierarch.load_weights(model, theirs(trained, "official") | buffers)
    assert set(report.ignored) == buffers.keys()
    assert_equal(model, trained)


def test_an_absolute_position_may_lie_flat():
    trained = perturb(hierarch.build(tiny(input_size=64, head=HEAD, **POSITION)))
    state = theirs(trained, "official")
    assert state["absolute_pos_embed"].shape == (1, 24, 8)
    model = hierarch.build(tiny(input_size=64, head=HEAD, **POSITION))
    hierarch.load_weights(model, state)
    assert_equal(model, trained)
    state["absolute_pos_embed"] = state["absolute_pos_embed"][:, :-1]
    assert_refused(model, state, r"table should have shape \(1, 4, 6, 8\), got \(1, 23, 8\)")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_headless_model_takes_a_classifiers_checkpoint(trained, layout):
    model = perturb(hierarch.build(tiny(out_indices=[0, 2])))
    norm = model.stages[2].norm.weight.clone()
    report = hierarch.load_weights(model, theirs(trained, layout))
    norms = {f"stages.{i}.norm.{name}" for i in (0, 2) for name in ("weight", "bias")}
    assert set(report.initialized) == norms
    assert set(report.loaded) == model.state_dict().keys() - norms
    assert len(report.ignored) == 4
    assert all(
        name.removeprefix("swin.").startswith(("norm.", "head.", "layernorm.", "classifier."))
        for name in report.ignored
    )
    assert torch.equal(model.stages[2].norm.weight, norm)
    images = noise(1, 3, 32, 32)
    maps = model.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(
        maps, trained.forward_intermediates(images, intermediates_only=True), rtol=0, atol=0
    )


def test_weights_take_the_models_type(trained):
    model = hierarch.build(tiny(input_size=64, head=HEAD)).double()
    hierarch.load_weights(model, trained.state_dict())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    half = {key: value.half() for key, value in trained.state_dict().items()}
    hierarch.load_weights(model, half)
    torch.testing.assert_close(model.head.fc.weight, half["head.fc.weight"].double())


# what is refused


def test_what_is_missing_is_named(model, trained):
    state = theirs(trained, "official")
    del state["layers.1.blocks.0.norm1.weight"], state["head.bias"]
    assert_refused(
        model,
        state,
        "the official checkpoint does not fit tiny",
        r"missing 2 \(layers.1.blocks.0.norm1.weight, head.bias\)",
    )


def test_what_is_left_over_is_named(model, trained):
    deeper = {f"layers.2.blocks.{j}.norm1.weight": torch.zeros(24) for j in range(2, 8)}
    state = theirs(trained, "official") | deeper
    assert_refused(model, state, r"left over 6 \(layers.2.blocks.2.norm1.weight, .*, ...\)")


def test_another_networks_weights_are_ignored_and_reported(model, trained):
    others = {f"decode_head.{i}.weight": torch.zeros(1) for i in range(3)}
    report = hierarch.load_weights(model, theirs(trained, "official") | others)
    assert set(report.ignored) == others.keys()
    assert_equal(model, trained)


def test_a_headless_checkpoint_does_not_fit_a_classifier(model):
    headless = hierarch.build(tiny())
    message = r"missing 4 \(norm.weight, .*\); to keep the model's own head, say new_head=True"
    assert_refused(model, headless.state_dict(), message)


def test_wrong_shapes_are_refused(model, trained):
    state = trained.state_dict()
    state["stages.2.downsample.reduction.weight"] = torch.zeros(24, 32)
    message = r"stages.2.downsample.reduction.weight should have shape \(24, 64\), got \(24, 32\)"
    assert_refused(model, state, message)
    other_classes = hierarch.build(tiny(head={"num_classes": 7}))
    assert_refused(other_classes, trained.state_dict(), r"head.fc.weight should .* \(7, 24\), got")


def test_what_is_no_weight_is_refused(model, trained):
    state = trained.state_dict()
    state["norm.weight"] = torch.ones(24, dtype=torch.int8)
    assert_refused(model, state, "norm.weight should be of floating-point numbers, got torch.int8")


@pytest.mark.parametrize(
    "state",
    [{}, {"a": 1}, {"model": 1}, {1: torch.ones(1)}, {None: torch.ones(1)}, {"model": {}}],
    ids=str,
)
def test_what_is_no_state_dict_is_refused(model, state, tmp_path):
    assert_refused(model, state, "not a state dict")
    torch.save(state, tmp_path / "weights.pth")
    assert_refused(model, tmp_path / "weights.pth", "not a state dict")


def test_unknown_layouts_are_refused(model, trained):
    assert_refused(model, {"weight": torch.ones(1)}, "which layout", r"seen 1 \(weight\)")
    both = theirs(trained, "official") | theirs(trained, "torchvision")
    assert_refused(model, both, "The keys fit official:swin and torchvision:swin")
    assert_refused(
        model,
        both,
        "unknown layout 'keras'; known: cswin, hierarch, huggingface, mmdetection",
        layout="keras",
    )


class RunsWhenRead:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_that_would_run_code_is_refused_unrun(model, tmp_path, suffix, plain):
    touched, path = tmp_path / "touched", tmp_path / f"weights{suffix}"
    content = {"model": RunsWhenRead(touched)}
    if plain:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    assert_refused(model, path, r"it asks for .*getattr.*, which could run code when read")
    assert not touched.exists()
    if plain:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert touched.exists()


def test_a_whole_module_is_refused(model, tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "weights.pth")
    assert_refused(model, tmp_path / "weights.pth", "is no plain checkpoint")
    torch.save([torch.ones(2)], tmp_path / "weights.pth")
    assert_refused(model, tmp_path / "weights.pth", "holds a list, not a state dict")


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "."])
def test_files_that_are_not_there_are_refused(model, tmp_path, name):
    assert_refused(model, tmp_path / name, "cannot be read: .*(No such file|Is a directory)")


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kind=st.sampled_from(["safetensors", "zipped", "legacy"]), data=st.data())
def test_damaged_files_are_refused(model, trained, tmp_path, kind, data):
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(trained.state_dict(), path)
    else:
        torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=kind == "zipped")
    raw = path.read_bytes()
    kept = data.draw(st.integers(0, len(raw) - 1) | st.integers(0, 200))
    tail = data.draw(st.binary(max_size=20))
    path.write_bytes((raw[:kept] + tail)[: len(raw) - 1])
    assert_refused(model, path)
