"""Feature maps at four scales, for detection or segmentation, from an image of any size.

The backbone's maps go into torchvision's feature pyramid: `pip install torchvision`.

    python examples/feature_pyramid.py
"""

import torch
from torchvision.ops import FeaturePyramidNetwork

import hierarch

backbone = hierarch.build("swin_tiny", head=None).eval()
pyramid = FeaturePyramidNetwork(backbone.feature_info.channels(), out_channels=256).eval()
images = torch.randn(1, 3, 333, 500)

with torch.no_grad():
    maps = backbone(images)  # a tuple of (B, C_i, H_i, W_i)
    levels = pyramid({f"stage {i}": features for i, features in enumerate(maps)})

for stride, features, (name, level) in zip(
    backbone.feature_info.reduction(), maps, levels.items(), strict=True
):
    print(f"{name}, stride {stride:2}: {tuple(features.shape)} -> {tuple(level.shape)}")
