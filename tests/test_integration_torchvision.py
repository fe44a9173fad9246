"""Backbones in torchvision's detectors, and in its feature extraction."""

from __future__ import annotations

import io
import math
import sys
from importlib import import_module

import pytest
import torch
from helpers import assert_same, noise, perturb, tiny, tiny_vit
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import LevelMapper

import hierarch
from hierarch.errors import MissingPackageError
from hierarch.integrations.torchvision import LevelOfBox, feature_extractor, fpn_backbone

FOUR = [{"dim": 8, "depth": 1}, {"dim": 8, "depth": 1}, {"dim": 8, "depth": 1}, *tiny()["stages"]]
FOUR = tiny(stages=FOUR[:4])
SIXES = tiny(stem={"type": "patch_embed", "patch_size": 6})
"""Strides 6, 12, 24."""
SIZE = {"min_size": 64, "max_size": 96}
ALL = SIZE | {"score_thresh": 0.0}
IMAGES = [noise(3, 64, 80).sigmoid(), noise(3, 72, 64, seed=1).sigmoid()]
BOXES = torch.tensor([[4.0, 6, 40, 50], [20, 20, 60, 60]])
TARGETS = [{"boxes": BOXES, "labels": torch.tensor([1, 2])} for _ in IMAGES]
MASKED = [
    target | {"masks": torch.ones(2, *image.shape[1:], dtype=torch.uint8)}
    for target, image in zip(TARGETS, IMAGES, strict=True)
]


def faster_rcnn(backbone):
    return FasterRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=backbone.anchors(),
        box_roi_pool=backbone.roi_pool(7),
        **SIZE,
    )


def mask_rcnn(backbone):
    return MaskRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=backbone.anchors(),
        box_roi_pool=backbone.roi_pool(7),
        mask_roi_pool=backbone.roi_pool(14),
        **SIZE,
    )


def retinanet(backbone):
    scales = [4 * 2 ** (i / 3) for i in range(3)]
    return RetinaNet(backbone, num_classes=3, anchor_generator=backbone.anchors(scales), **ALL)


def fcos(backbone):
    anchors = backbone.anchors(scales=[1], aspect_ratios=[1])
    return FCOS(backbone, num_classes=3, anchor_generator=anchors, **ALL)


@pytest.mark.parametrize(
    ("detector", "targets", "spec"),
    [
        (faster_rcnn, TARGETS, FOUR),
        (faster_rcnn, TARGETS, SIXES),
        (mask_rcnn, MASKED, SIXES | {"out_indices": [1]}),
        (retinanet, TARGETS, FOUR | {"out_indices": [1, 2, 3]}),
        (fcos, TARGETS, SIXES),
    ],
)
def test_a_detector_is_trained_saved_and_loaded(detector, targets, spec):
    def build():
        extra = LastLevelP6P7(32, 32) if detector in (retinanet, fcos) else None
        return detector(fpn_backbone(spec, out_channels=32, extra_blocks=extra))

    model = build().train()
    losses = model(IMAGES, targets)
    sum(losses.values()).backward()
    grads = [weight.grad for weight in model.backbone.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = build()
    again.load_state_dict(torch.load(file))
    with torch.no_grad():
        found, wanted = again.eval()(IMAGES), model.eval()(IMAGES)
    for one, other in zip(found, wanted, strict=True):
        assert len(one["boxes"])
        assert_same(one, other)


def test_levels_are_torchvisions_pyramid_of_the_plain_networks_maps():
    backbone = fpn_backbone(FOUR, out_channels=16).eval()
    plain = perturb(hierarch.build(FOUR))
    backbone.body.load_state_dict(plain.state_dict())
    pyramid = FeaturePyramidNetwork([8, 8, 8, 8], 16, LastLevelMaxPool()).eval()
    pyramid.load_state_dict(backbone.fpn.state_dict())
    images = noise(2, 3, 50, 70)
    with torch.no_grad():
        found = backbone(images)
        wanted = pyramid({str(i): features for i, features in enumerate(plain(images))})
    assert list(found) == ["0", "1", "2", "3", "pool"] == list(wanted)
    assert_same(list(found.values()), list(wanted.values()))


def test_maps_are_normed_where_the_spec_says_so():
    images = noise(1, 3, 40, 40)
    normed = perturb(fpn_backbone(FOUR | {"head": {"num_classes": 5}}).body)
    raw = fpn_backbone(FOUR | {"output_norm": False}).body.eval()
    raw.load_state_dict(normed.state_dict(), strict=False)
    with torch.no_grad():
        for stage, one, other in zip(normed.stages, normed(images), raw(images), strict=True):
            assert (one - other).abs().max() > 0.1
            assert_same(one, stage.norm(other.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_stages_are_chosen_and_frozen():
    chosen = fpn_backbone(FOUR, out_indices=[0, 2], frozen_stages=1)
    own = fpn_backbone(FOUR | {"out_indices": [0, 2]})
    assert chosen.strides == own.strides == [(4, 4), (16, 16), (32, 32)]
    assert len(chosen.body.stages) == len(own.body.stages) == 3
    for name, weight in chosen.named_parameters():
        assert weight.requires_grad is not name.startswith(("body.stem.", "body.stages.0."))
    assert not chosen.train().body.stages[0].training
    assert chosen.body.stages[1].training


def test_strides_of_extra_blocks():
    extra = LastLevelP6P7(24, 16)  # on the last map, not on its level
    backbone = fpn_backbone(SIXES, out_channels=16, extra_blocks=extra)
    assert backbone.strides == [(6, 6), (12, 12), (24, 24), (48, 48), (96, 96)]
    levels = backbone(noise(1, 3, 192, 96))
    assert [tuple(x.shape[2:]) for x in levels.values()] == [
        (math.ceil(192 / h), math.ceil(96 / w)) for h, w in backbone.strides
    ]


def test_anchors_of_the_usual_strides_are_torchvisions():
    backbone = fpn_backbone(FOUR, out_channels=16)
    images = ImageList(noise(2, 3, 64, 128), [(60, 90), (64, 128)])
    levels = list(backbone(images.tensors).values())
    sizes = ((32,), (64,), (128,), (256,), (512,))
    theirs = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    assert_same(backbone.anchors()(images, levels), theirs(images, levels))


def test_anchors_are_a_stride_apart_where_it_does_not_divide_the_image():
    backbone = fpn_backbone(SIXES | {"out_indices": [0]}, out_channels=16)
    images = ImageList(noise(1, 3, 64, 64), [(64, 64)])
    levels = list(backbone(images.tensors).values())
    [found] = backbone.anchors(scales=[1], aspect_ratios=[1])(images, levels)
    first = found[: 11 * 11].view(11, 11, 4)  # 64 / 6, rounded up
    assert_same(first[:, 0, 1] + 3, 6.0 * torch.arange(11))
    assert_same(first[0, :, 0] + 3, 6.0 * torch.arange(11))
    theirs = AnchorGenerator(((6,), (12,)), ((1.0,),) * 2)
    assert (theirs(images, levels)[0][: 11 * 11] - found[: 11 * 11]).abs().max() == 10


def test_boxes_are_pooled_from_torchvisions_levels():
    sides = torch.tensor([1, 50, 111.99, 112, 113, 223.9, 224, 447, 448, 800])
    boxes = [torch.stack([0 * sides, 0 * sides, sides, sides], 1)]
    theirs = LevelMapper(2, 5)(boxes)
    assert LevelOfBox([4, 8, 16, 32])(boxes).tolist() == theirs.tolist()
    assert {*theirs.tolist()} == {0, 1, 2, 3}
    assert LevelOfBox([6, 12, 24])(boxes).tolist() == [0] * 5 + [1] * 2 + [2] * 3


@pytest.mark.parametrize("spec", [FOUR, SIXES], ids=["4", "6"])
def test_a_box_is_pooled_where_it_is(spec):
    """Maps whose values are their pixels' coordinates are pooled to the coordinates of the box.
    torchvision's RoIAlign puts a pixel where it begins."""
    backbone = fpn_backbone(spec, out_channels=16)
    maps = {}
    for name, (stride, _) in zip(backbone.names, backbone.strides, strict=False):
        at = stride * torch.arange(120.0 / stride)
        maps[name] = torch.stack(torch.meshgrid(at, at, indexing="ij"))[None]
    boxes = torch.tensor([[30.0, 40, 70, 90]])
    pooled = backbone.roi_pool(2)(maps, [boxes], [(120, 120)])
    assert_same(pooled[0, 0, :, 0], torch.tensor([52.5, 77.5]))
    assert_same(pooled[0, 1, 0], torch.tensor([40.0, 60.0]))
    if spec is SIXES:
        theirs = MultiScaleRoIAlign(backbone.names, 2, 2)(maps, [boxes], [(120, 120)])
        assert (theirs - pooled).abs().max() > 5


def test_roi_pools_need_one_stride():
    stem = {"type": "patch_embed", "patch_size": [4, 2]}
    backbone = fpn_backbone(tiny(stem=stem))
    assert backbone.strides[0] == (4, 2)
    assert backbone.anchors().strides == backbone.strides
    with pytest.raises(ValueError, match=r"one scale for height and width; strides are \[\(4, 2\)"):
        backbone.roi_pool(7)


def test_logits_with_tokens_outside_of_the_grid_are_extracted_by_torch_fx():
    model, images = perturb(hierarch.build(tiny_vit())), noise(2, 3, 40, 56)
    with torch.no_grad():
        found = feature_extractor(model, {"stages.0.blocks.0": "map", "head": "logits"})(images)
        assert_same(found["logits"], model(images))
    assert found["map"].shape == (2, 1, 3 + 35, 8)


@pytest.mark.parametrize("head", [None, {"num_classes": 5}], ids=["maps", "head"])
def test_features_are_extracted_by_torch_fx(head):
    model = perturb(hierarch.build(tiny(head=head)))
    nodes = {"stages.0": "first", "stages.2": "last", "stages.1.blocks.1.mixer": "mixed"}
    with torch.no_grad():
        seen = []
        model.stages[1].blocks[1].mixer.register_forward_hook(lambda *args: seen.append(args[2]))
        images = noise(2, 3, 50, 70)
        maps = model.forward_intermediates(
            images, norm=head is None, output_fmt="NHWC", intermediates_only=True
        )
        found = feature_extractor(model, nodes)(images)
    assert_same([found["first"], found["last"], found["mixed"]], [maps[0], maps[2], seen[0]])


def test_an_extracted_graph_is_trained():
    model = hierarch.build(tiny(drop_path_rate=0.1))
    graph = feature_extractor(model, ["stages.1"]).train()
    graph(noise(2, 3, 40, 40))["stages.1"].square().sum().backward()
    assert graph.get_submodule("stages.1.blocks.0.mlp.fc1").weight.grad is not None


def test_without_the_package_there_is_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "hierarch.integrations.torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        MissingPackageError, match=r"torchvision: pip install 'hierarch-vision\[torchvision\]'$"
    ):
        import_module("hierarch.integrations.torchvision")
