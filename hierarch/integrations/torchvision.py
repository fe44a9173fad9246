"""Backbones for torchvision's detectors: Faster and Mask R-CNN, RetinaNet, FCOS.

    backbone = fpn_backbone("swin_tiny")
    model = FasterRCNN(
        backbone,
        num_classes=91,
        rpn_anchor_generator=backbone.anchors(),
        box_roi_pool=backbone.roi_pool(7),
    )

Any strides fit, and any number of maps. Feature pyramid: Lin et al. 2017, arXiv:1612.03144.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from hierarch.building import Backbone, build, engine_disabled
from hierarch.needs import require
from hierarch.nn.head import Head
from hierarch.nn.stage import Block, Stage
from hierarch.spec.grid import Sides
from hierarch.spec.load import Source, load, of_images

require("torchvision", extra="torchvision")
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.feature_extraction import create_feature_extractor  # noqa: E402
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_area  # noqa: E402
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool  # noqa: E402


def fpn_backbone(
    spec: Source,
    *,
    out_channels: int = 256,
    out_indices: Sequence[int] | None = None,
    frozen_stages: int = -1,
    extra_blocks: nn.Module | None = None,
) -> FpnBackbone:
    """A backbone with torchvision's feature pyramid on its maps.

    `spec`: a preset's name, a YAML file, a mapping or a spec. Its head is left out, and each map is
    normed before the pyramid, unless the spec says `output_norm: false`. `out_indices`: the stages
    whose maps are used; by default the spec's own, or all. `frozen_stages`: see `Backbone.freeze`.
    `extra_blocks`: torchvision's coarser levels, by default one, `LastLevelMaxPool`.

    Weights are those of the result's `body`: `hierarch.load_weights(backbone.body, "swin.pth")`.

    >>> backbone = fpn_backbone("swin_tiny", out_channels=64)
    >>> levels = backbone(torch.zeros(1, 3, 64, 64))
    >>> levels["0"].shape, list(levels)
    (torch.Size([1, 64, 16, 16]), ['0', '1', '2', '3', 'pool'])
    """
    given = of_images(load(spec))
    outputs = given.outputs or None if out_indices is None else tuple(out_indices)
    body = build(given, head=None, out_indices=outputs)
    body.freeze(frozen_stages)
    return FpnBackbone(body, out_channels, extra_blocks or LastLevelMaxPool())


class FpnBackbone(nn.Module):
    """Images (B, in_chans, H, W) to a dict of levels (B, out_channels, H_i, W_i), the finest first:
    "0", "1" and so on for the maps of `body`, the backbone, then those of the extra blocks.

    >>> backbone = fpn_backbone("swin_tiny", out_indices=[2, 3])
    >>> backbone.strides
    [(16, 16), (32, 32), (64, 64)]
    """

    def __init__(self, body: Backbone, out_channels: int, extra_blocks: nn.Module) -> None:
        super().__init__()
        outputs, strides = body.spec.outputs, body.spec.strides()
        channels = [body.feature_info.channels()[i] for i in outputs]
        self.body = body
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=extra_blocks)
        self.out_channels = out_channels
        self.names = [str(i) for i in range(len(outputs))]
        """The levels that are not of extra blocks."""
        (h, w), factors = strides[-1], _extra_factors(extra_blocks, channels, out_channels)
        self.strides = [*(strides[i] for i in outputs), *((h * f, w * f) for f in factors)]
        """Pixels per token of every level, (height, width)."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels: dict[str, Tensor] = self.fpn(dict(zip(self.names, self.body(images), strict=True)))
        return levels

    def anchors(
        self, scales: Sequence[float] = (8,), aspect_ratios: Sequence[float] = (0.5, 1, 2)
    ) -> AnchorGenerator:
        """Anchors for every level: `scales` times its stride, at these ratios of height to width.

        The default is Faster R-CNN's, 32 pixels at stride 4. RetinaNet's scales are 4, 4·2^⅓ and
        4·2^⅔; FCOS has the one scale 1 and the one ratio 1.
        """
        return StrideAnchors(self.strides, scales, aspect_ratios)

    def roi_pool(self, output_size: int, sampling_ratio: int = 2) -> MultiScaleRoIAlign:
        """RoIAlign from the backbone's levels, without the extra ones.

        Raises `ValueError` where a stride in height is not that in width.
        """
        strides = self.strides[: len(self.names)]
        if any(h != w for h, w in strides):
            raise ValueError(f"RoIAlign has one scale for height and width; strides are {strides}")
        pool = MultiScaleRoIAlign(self.names, output_size, sampling_ratio)
        # torchvision would take the nearest powers of two
        pool.scales = [1 / h for h, _ in strides]
        pool.map_levels = LevelOfBox([h for h, _ in strides])
        return pool


class StrideAnchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors, for strides that are known: it divides the image's size by the map's,
    which is the stride only where the stride divides that size."""

    def __init__(
        self, strides: Sequence[Sides], scales: Sequence[float], aspect_ratios: Sequence[float]
    ) -> None:
        sizes = tuple(tuple(math.sqrt(h * w) * scale for scale in scales) for h, w in strides)
        super().__init__(sizes, (tuple(aspect_ratios),) * len(sizes))
        self.strides = list(strides)

    def forward(self, image_list: Any, feature_maps: list[Tensor]) -> list[Tensor]:
        self.set_cell_anchors(feature_maps[0].dtype, feature_maps[0].device)
        grids = [features.shape[-2:] for features in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, self.strides))
        return [anchors] * len(image_list.image_sizes)


class LevelOfBox:
    """Boxes (N, 4) of each image -> (N of all): which level each box is pooled from.

    The coarsest of which 14 strides, 224 pixels at stride 16, fit into the box (Lin et al. 2017,
    eq. 1), else the finest. torchvision's `LevelMapper` is the same for strides that double.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        self.strides = strides

    def __call__(self, boxes: list[Tensor]) -> Tensor:
        sides = box_area(torch.cat(boxes)).sqrt()
        smallest = 14 * sides.new_tensor(self.strides)
        fitting = torch.bucketize(sides * 2**1e-6, smallest, right=True)
        return (fitting - 1).clamp(min=0)


def feature_extractor(model: Backbone, return_nodes: list[str] | dict[str, str]) -> GraphModule:
    """torchvision's `create_feature_extractor` for a backbone: a graph of `torch.fx` that returns
    the outputs of modules such as "stages.1" or "stages.2.blocks.0.mixer", (B, H, W, C).

    Mixers, MLPs, stems and downsamplings are one node each: they compute with the sizes of maps,
    which symbolic tracing cannot follow. The graph's `train` knows nothing of frozen stages.

    >>> graph = feature_extractor(build("swin_tiny").eval(), {"stages.1": "map"})
    >>> graph(torch.zeros(1, 3, 64, 64))["map"].shape
    torch.Size([1, 8, 8, 192])
    """
    opened = (Backbone, Stage, Block, Head)
    leaves = {type(module) for module in model.modules() if not isinstance(module, opened)}
    options = {"leaf_modules": list(leaves)}
    with engine_disabled():
        graph: GraphModule = create_feature_extractor(model, return_nodes, tracer_kwargs=options)
    return graph


def _extra_factors(blocks: nn.Module, channels: list[int], out_channels: int) -> list[int]:
    """How many strides of the last map each extra level has, found by running the blocks."""
    side, like = 16, next(blocks.parameters(), torch.empty(0))
    maps = [like.new_zeros(1, dim, side, side) for dim in channels]
    levels = [like.new_zeros(1, out_channels, side, side) for _ in channels]
    with torch.no_grad():
        levels, _ = copy.deepcopy(blocks).eval()(levels, maps, [""] * len(maps))
    return [side // level.shape[-1] for level in levels[len(maps) :]]
