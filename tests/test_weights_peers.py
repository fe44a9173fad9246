"""Weights that peers hold or have saved, told by their keys: the outputs are the peer's own."""

import re

import pytest
import timm
import torch
from helpers import noise, perturb
from safetensors.torch import load_file, save_file
from transformers import SwinBackbone, SwinConfig, SwinForImageClassification, SwinModel

import hierarch

SHAPE = {"embed_dim": 8, "depths": [2, 3], "num_heads": [2, 4], "window_size": 4}
CONFIG = {**SHAPE, "image_size": 64, "num_labels": 5}
WINDOWS = {"type": "window_attention", "head_dim": 4, "window_size": 4}


def spec(**fields):
    return {
        "mixer": [WINDOWS, WINDOWS | {"shift_size": 2}],
        "stages": [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 3}],
        **fields,
    }


def classifier(source, layout):
    model = hierarch.build(spec(head={"num_classes": 5})).eval()
    report = hierarch.load_weights(model, source)
    assert report.layout == layout
    assert report.initialized == ()
    return model, report


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def images():
    return noise(2, 3, 64, 64)


@pytest.fixture(scope="module")
def hugging_face():
    return perturb(SwinForImageClassification(SwinConfig(**CONFIG))).eval()


@torch.no_grad()
def test_timms_classifier(images):
    theirs = timm.models.SwinTransformer(img_size=64, num_classes=5, **SHAPE)
    ours, _ = classifier(perturb(theirs).eval().state_dict(), "timm")
    assert_same(ours(images), theirs(images))


@torch.no_grad()
def test_timms_classifier_of_one_stage(images):
    theirs = timm.models.SwinTransformer(
        img_size=64, num_classes=5, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4
    )
    ours = hierarch.build(spec(stages=[{"dim": 8, "depth": 2}], head={"num_classes": 5})).eval()
    report = hierarch.load_weights(ours, perturb(theirs).eval().state_dict())
    assert report.layout == "timm"
    assert_same(ours(images), theirs(images))


@torch.no_grad()
def test_hugging_faces_classifier(images, hugging_face):
    ours, report = classifier(hugging_face.state_dict(), "huggingface")
    assert report.ignored == ()
    assert_same(ours(images), hugging_face(images).logits)


@torch.no_grad()
def test_hugging_faces_classifier_as_it_is_saved(images, hugging_face, tmp_path):
    hugging_face.save_pretrained(tmp_path)
    ours, _ = classifier(tmp_path / "model.safetensors", "huggingface")
    assert_same(ours(images), hugging_face(images).logits)


OLDER = {
    r"attention\.q_proj": "attention.self.query",
    r"attention\.k_proj": "attention.self.key",
    r"attention\.v_proj": "attention.self.value",
    r"attention\.relative_position_bias": "attention.self",
    r"attention\.o_proj": "attention.output.dense",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
}


@torch.no_grad()
def test_hugging_faces_classifier_under_its_older_names(images, hugging_face, tmp_path):
    def older(key):
        for pattern, name in OLDER.items():
            key = re.sub(pattern, name, key)
        return key

    state = {older(key): value for key, value in hugging_face.state_dict().items()}
    index = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"
    state[index] = torch.zeros(16, 16, dtype=torch.long)
    save_file(state, tmp_path / "older.safetensors")
    assert load_file(tmp_path / "older.safetensors").keys() != hugging_face.state_dict().keys()
    ours, report = classifier(tmp_path / "older.safetensors", "huggingface")
    assert len(report.ignored) == 1
    assert_same(ours(images), hugging_face(images).logits)


@torch.no_grad()
def test_hugging_faces_backbone(images):
    config = SwinConfig(**SHAPE, image_size=64, out_features=["stage1", "stage2"])
    theirs = perturb(SwinBackbone(config)).eval()
    ours = hierarch.build(spec()).eval()
    report = hierarch.load_weights(ours, theirs.state_dict())
    assert set(report.ignored) == {"layernorm.weight", "layernorm.bias"}
    assert report.initialized == ()
    for found, wanted in zip(ours(images), theirs(images).feature_maps, strict=True):
        assert_same(found, wanted)


@torch.no_grad()
def test_hugging_faces_model_has_no_output_norms(images):
    theirs = perturb(SwinModel(SwinConfig(**CONFIG))).eval()
    ours = hierarch.build(spec(out_indices=[1])).eval()
    report = hierarch.load_weights(ours, theirs.state_dict())
    assert report.initialized == ("stages.1.norm.weight", "stages.1.norm.bias")
    final = theirs.layernorm(
        ours.forward_intermediates(images, indices=1, output_fmt="NHWC", intermediates_only=True)[0]
    )
    assert_same(final.flatten(1, 2), theirs(images).last_hidden_state)


def test_a_weight_under_two_names_is_refused(hugging_face):
    state = dict(hugging_face.state_dict())
    state["layernorm.weight"] = torch.zeros(16)
    with pytest.raises(hierarch.WeightsError, match="one weight has several names: seen 2"):
        classifier(state, "huggingface")


def test_parts_of_other_shapes_are_refused(hugging_face):
    state = dict(hugging_face.state_dict())
    key = "swin.encoder.layers.0.blocks.0.attention.k_proj.weight"
    state[key] = torch.zeros(8, 9)
    with pytest.raises(hierarch.WeightsError, match="parts should have one shape"):
        classifier(state, "huggingface")
    del state[key]
    with pytest.raises(hierarch.WeightsError, match=r"missing 1 .*k_proj"):
        classifier(state, "huggingface")
