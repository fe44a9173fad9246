"""Weights of timm, torchvision and transformers: read, the outputs are the peer's own; written, the
peer takes them for its own."""

from __future__ import annotations

import pytest
import torch
from helpers import noise, perturb
from peers import ODD, PEERS, cases, outputs
from safetensors.torch import save_file
from transformers import SwinBackbone, SwinConfig, SwinForImageClassification, SwinModel

import hierarch
from hierarch.weights.infer import infer

UNUSED = ("swin.layernorm.weight", "swin.layernorm.bias")
"""What transformers' SwinBackbone holds, and no output of it goes through."""


@torch.no_grad()
def ours(model, images):
    """What the peer's forward returns: logits, the last map's tokens, or maps."""
    if model.spec.head is None:
        return list(model(images))
    return [model(images)]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        scale = other.abs().max()
        torch.testing.assert_close(one / scale, other / scale, rtol=1e-5, atol=1e-5)


def assert_identical(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(found[name], tensor), name


@pytest.fixture(scope="module")
def read():
    """The network that `from_checkpoint` makes of a peer's weights."""
    models = {}

    def read(name):
        if name not in models:
            peer = PEERS[name]
            models[name] = hierarch.from_checkpoint(peer.trained().state_dict(), **peer.options)
        return models[name]

    return read


@pytest.mark.parametrize(("name", "size"), list(cases()), ids=str)
def test_the_outputs_are_the_peers(read, name, size):
    peer = PEERS[name]
    images = peer.images(size)
    wanted = outputs(peer.trained(size), images)
    model = read(name)
    if wanted[0].ndim == 3:
        with torch.no_grad():
            found = [model.forward_features(images).flatten(1, 2)]
    else:
        found = ours(model, images)
    assert_same(found, wanted)


@pytest.mark.parametrize("name", PEERS)
def test_what_is_written_is_the_peers_own_state_dict(read, name):
    peer = PEERS[name]
    state = peer.trained().state_dict()
    written = hierarch.export_weights(read(name), layout=peer.library)
    if "Backbone" in name and "v1" in name:
        for key in UNUSED:
            fresh = torch.ones if key.endswith("weight") else torch.zeros
            assert torch.equal(written[key], fresh(state[key].shape))
            state[key] = written[key]
    assert_identical(written, state)
    peer.build(peer.size).load_state_dict(written, strict=True)


@pytest.mark.parametrize("name", PEERS)
def test_a_conversion_to_its_own_layout_changes_nothing(tmp_path, name):
    peer = PEERS[name]
    state = peer.trained().state_dict()
    path = tmp_path / "converted.pth"
    hierarch.convert_weights(state, path, layout=peer.library, **peer.options)
    assert_identical(torch.load(path), dict(state))


@pytest.mark.parametrize("name", PEERS)
def test_every_weight_is_read(name):
    peer = PEERS[name]
    state = peer.trained().state_dict()
    inferred = infer(state, **peer.options)
    assert inferred.layout == peer.library
    model = hierarch.build(inferred.spec)
    report = hierarch.load_weights(model, state)
    assert f"{report.layout}:{report.network}" == peer.layout
    assert set(report.loaded) == model.state_dict().keys()
    assert report.initialized == report.resampled == report.dtypes == ()
    buffers = {key for key in state if "relative_" in key and "bias" not in key}
    unused = {*UNUSED} if "v1 Backbone" in name else set()
    assert set(report.ignored) == buffers | unused


def test_the_noise_shows_a_network_with_another_shift(read):
    """The comparison above can fail: the same weights without the shifts are another function."""
    name = "timm v1"
    peer, model = PEERS[name], read(name)
    stages = [
        stage.to_data() | {"mixer": [stage.mixer[0].to_data()]} for stage in model.spec.stages
    ]
    unshifted = hierarch.build(model.spec, stages=stages).eval()
    unshifted.load_state_dict(model.state_dict())
    images = peer.images(peer.size)
    wanted = outputs(peer.trained(), images)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(ours(unshifted, images), wanted)


OLDER = [
    ("attention.q_proj", "attention.self.query"),
    ("attention.k_proj", "attention.self.key"),
    ("attention.v_proj", "attention.self.value"),
    ("attention.relative_position_bias", "attention.self"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
]


def test_transformers_files_from_before_version_5(read, tmp_path):
    name = "huggingface v1"
    state = PEERS[name].trained().state_dict()
    older = {}
    for key, value in state.items():
        for new, old in OLDER:
            key = key.replace(new, old)
        older[key] = value
    assert older.keys() != state.keys()
    index = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"
    save_file(
        older | {index: torch.zeros(16, 16, dtype=torch.long)}, tmp_path / "older.safetensors"
    )
    model = hierarch.from_checkpoint(tmp_path / "older.safetensors")
    assert_identical(model.state_dict(), read(name).state_dict())
    assert hierarch.load_weights(model, tmp_path / "older.safetensors").ignored == (index,)


@pytest.mark.parametrize("name", ["huggingface v1", "huggingface v1 Backbone", "huggingface v2"])
def test_transformers_files_as_it_saves_them(read, tmp_path, name):
    peer = PEERS[name]
    peer.trained().save_pretrained(tmp_path)
    model = hierarch.from_checkpoint(tmp_path / "model.safetensors", **peer.options)
    assert_identical(model.state_dict(), read(name).state_dict())
    assert model.spec.name == "model"


CONFIG = {**ODD, "window_size": 4, "image_size": 64}


@pytest.mark.parametrize("kind", [SwinForImageClassification, SwinModel, SwinBackbone])
def test_transformers_reads_what_is_written(tmp_path, kind):
    """Not only `load_state_dict`: also transformers' own reader, which renames as it reads."""
    theirs = perturb(kind(SwinConfig(**CONFIG, out_features=["stage3"])))
    theirs.save_pretrained(tmp_path)
    model = hierarch.from_checkpoint(theirs.state_dict())
    hierarch.export_weights(model, tmp_path / "model.safetensors", layout="huggingface")
    again = kind.from_pretrained(tmp_path).eval()
    images = noise(1, 3, 64, 64)
    for found, wanted in zip(outputs(again, images), outputs(theirs, images), strict=True):
        assert torch.equal(found, wanted)
