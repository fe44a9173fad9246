"""The network's interface: inputs, outputs and timm's methods."""

from __future__ import annotations

import pytest
import timm
import torch
from helpers import assert_same, from_timm, noise, perturb, tiny
from torch import nn

import hierarch

HEAD = {"num_classes": 5}
DIMS = (8, 16, 24)


@pytest.fixture(scope="module")
def classifier():
    return perturb(hierarch.build(tiny(head=HEAD)))


@pytest.fixture(scope="module")
def extractor():
    return perturb(hierarch.build(tiny()))


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def same(found, wanted, **tolerances):
    torch.testing.assert_close(found, wanted, **(tolerances or {"rtol": 0, "atol": 0}))


# in and out


def test_a_network_with_a_head_gives_logits(classifier):
    assert classifier(noise(2, 3, 70, 50)).shape == (2, 5)


def test_a_network_without_a_head_gives_the_map_of_every_stage(extractor):
    shapes = [tuple(m.shape) for m in extractor(noise(2, 3, 70, 50))]
    assert shapes == [(2, 8, 18, 13), (2, 16, 9, 7), (2, 24, 5, 4)]


def test_out_indices_choose_the_maps(extractor):
    some = hierarch.build(tiny(out_indices=[0, 2])).eval()
    some.load_state_dict(extractor.state_dict(), strict=False)
    images = noise(2, 3, 40, 40)
    maps = extractor(images)
    same(some(images), (maps[0], maps[2]))


def test_output_norms_exist_only_for_out_indices():
    model = hierarch.build(tiny(out_indices=[0, 2]))
    assert [isinstance(stage.norm, nn.LayerNorm) for stage in model.stages] == [True, False, True]
    assert not list(model.norm.parameters())
    headed = hierarch.build(tiny(head=HEAD))
    assert not any(isinstance(stage.norm, nn.LayerNorm) for stage in headed.stages)
    assert isinstance(headed.norm, nn.LayerNorm)


def test_no_stage_is_built_after_the_last_output():
    images = noise(1, 3, 40, 40)
    whole = hierarch.build(tiny(drop_path_rate=0.3)).eval()
    cut = hierarch.build(tiny(drop_path_rate=0.3, out_indices=[0, 1])).eval()
    assert len(cut.stages) == 2
    assert cut.feature_info.channels() == [8, 16]
    assert [b.drop_path1.rate for b in cut.stages[1].blocks] == [
        b.drop_path1.rate for b in whole.stages[1].blocks
    ]
    assert hierarch.load_weights(cut, whole.state_dict()).ignored
    same(cut(images), whole(images)[:2])
    report = hierarch.measure(cut.spec, [40]).sizes[0]
    assert report.macs == report.claimed_macs
    with torch.enable_grad():
        torch.stack([map_.mean() for map_ in cut(images)]).sum().backward()
    assert all(parameter.grad is not None for parameter in cut.parameters())


def test_forward_is_features_then_head(classifier):
    images = noise(1, 3, 40, 56)
    features = classifier.forward_features(images)
    assert features.shape == (1, 3, 4, 24)
    same(classifier.forward_head(features), classifier(images))
    pooled = classifier.forward_head(features, pre_logits=True)
    same(pooled, features.mean((1, 2)))
    assert_same(classifier.get_classifier()(pooled), classifier(images))
    assert classifier.num_features == 24


def test_features_are_normalized_once(classifier, extractor):
    images = noise(1, 3, 40, 40)
    same(extractor.forward_features(images).permute(0, 3, 1, 2), extractor(images)[-1])
    raw = classifier.forward_intermediates(images, 1, output_fmt="NHWC", intermediates_only=True)
    same(classifier.forward_features(images), classifier.norm(raw[0]))


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (4, 200), (33, 65)], ids=str)
@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_any_size_and_a_batch_of_one(mixer, size):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    images = noise(3, 3, *size)
    logits = model(images)
    assert logits.isfinite().all()
    same(model(images[:1]), logits[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32), (1, 32, 32, 3), (3, 32)], ids=str)
def test_images_of_the_wrong_shape_are_refused(classifier, shape):
    message = rf"images should be \(batch, 3, height, width\), got \({', '.join(map(str, shape))}\)"
    with pytest.raises(ValueError, match=message):
        classifier(noise(*shape))


def test_other_layouts_in_memory_give_the_same(classifier):
    images = noise(2, 3, 36, 44)
    expected = classifier(images)
    turned = images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    same(classifier(images.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-6)
    same(classifier(turned), expected, rtol=0, atol=1e-6)
    same(
        classifier(noise(2, 3, 36, 88)[..., ::2]), classifier(noise(2, 3, 36, 88)[..., ::2].clone())
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_other_types(mixer, dtype, tolerance):
    spec = tiny(
        mixer, head=HEAD, layer_scale=0.5, position_embedding={"type": "absolute", "grid": 6}
    )
    model = perturb(hierarch.build(spec))
    images = noise(2, 3, 36, 44)
    expected = model(images)
    logits = model.to(dtype)(images.to(dtype))
    assert logits.dtype == dtype
    same(logits.float(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("mixer", ["window_attention", "window_mlp"])
def test_autocast(mixer):
    model = perturb(hierarch.build(tiny(mixer, head=HEAD)))
    images = noise(2, 3, 36, 44)
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    same(logits.float(), expected, rtol=0, atol=0.1 * float(expected.abs().max()))


# timm's habits


@pytest.fixture(scope="module")
def timm_pair():
    theirs = perturb(
        timm.models.SwinTransformer(
            img_size=64, window_size=4, embed_dim=8, depths=(1, 2, 1), num_heads=(2, 4, 8)
        )
    )
    mixer = {"type": "window_attention", "head_dim": 4, "window_size": 4}
    stages = [{"dim": dim, "depth": depth} for dim, depth in ((8, 1), (16, 2), (32, 1))]
    cycle = [mixer, mixer | {"shift_size": 2}]
    ours = hierarch.build({"stages": stages, "mixer": cycle, "head": {}}).eval()
    ours.load_state_dict(from_timm(theirs.state_dict(), ours.state_dict()))
    return theirs, ours


@pytest.mark.parametrize("indices", [None, 1, 2, 3, [0], [-1], [2, 0], [-3, 1], (1,)], ids=str)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("intermediates_only", [False, True])
def test_intermediates_are_timms(timm_pair, indices, norm, stop_early, intermediates_only):
    theirs, ours = timm_pair
    options = {"norm": norm, "stop_early": stop_early, "intermediates_only": intermediates_only}
    images = noise(1, 3, 64, 64)
    expected = theirs.forward_intermediates(images, indices, **options)
    same(ours.forward_intermediates(images, indices, **options), expected, rtol=0, atol=1e-5)


def test_intermediates_channels_last(extractor):
    images = noise(1, 3, 40, 40)
    maps = extractor.forward_intermediates(images, norm=True, intermediates_only=True)
    same(maps, list(extractor(images)))
    last = extractor.forward_intermediates(
        images, norm=True, intermediates_only=True, output_fmt="NHWC"
    )
    same([m.permute(0, 3, 1, 2) for m in last], maps)


@pytest.mark.parametrize("indices", [0, 4, [3], [-4], []], ids=str)
def test_intermediates_out_of_range_are_refused(extractor, indices):
    with pytest.raises(ValueError, match=r"^indices=.* should be"):
        extractor.forward_intermediates(noise(1, 3, 8, 8), indices)


def test_an_unknown_output_format_is_refused(extractor):
    with pytest.raises(ValueError, match="output_fmt='NLC' should be 'NCHW' or 'NHWC'"):
        extractor.forward_intermediates(noise(1, 3, 8, 8), output_fmt="NLC")


def test_feature_info(extractor):
    info = extractor.feature_info
    assert info.channels() == list(DIMS)
    assert info.reduction() == info.strides() == [4, 8, 16]
    assert [entry["module"] for entry in info] == ["stages.0", "stages.1", "stages.2"]
    oblong = hierarch.build(tiny(stem={"type": "patch_embed", "patch_size": [4, 2]}))
    assert oblong.feature_info.reduction() == [(4, 2), (8, 4), (16, 8)]


def test_no_weight_decay_names_parameters_of_several_dimensions():
    model = hierarch.build(tiny(position_embedding={"type": "absolute", "grid": 4}))
    names, parameters = model.no_weight_decay(), dict(model.named_parameters())
    assert names <= parameters.keys()
    tables = {name for name in parameters if name.endswith("relative_position_bias_table")}
    assert len(tables) == 7
    assert names == tables | {"position_embedding.table"}
    assert all(parameters[name].ndim > 1 for name in names)
    assert hierarch.build(tiny("window_mlp")).no_weight_decay() == set()


@pytest.mark.parametrize("num_classes", [3, 0])
def test_reset_classifier(num_classes):
    model = perturb(hierarch.build(tiny(head=HEAD))).double()
    images = noise(1, 3, 32, 32, dtype=torch.float64)
    features = model.forward_features(images)
    model.reset_classifier(num_classes)
    logits = model(images)
    assert logits.shape == (1, num_classes or 24)
    assert logits.dtype == torch.float64
    assert model.spec.head.num_classes == num_classes
    same(model.forward_head(features), logits)


def test_reset_classifier_without_a_head_is_refused(classifier, extractor):
    with pytest.raises(ValueError, match="tiny has no head"):
        extractor.reset_classifier(3)
    with pytest.raises(ValueError, match="tiny has no head"):
        extractor.forward_head(noise(1, 2, 2, 24))
    with pytest.raises(ValueError, match="num_classes"):
        classifier.reset_classifier(-1)
    assert classifier.spec.head.num_classes == 5
