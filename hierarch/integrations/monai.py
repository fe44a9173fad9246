"""Swin UNETR of MONAI with any encoder that a spec for volumes describes.

    from hierarch.integrations.monai import swin_unetr

    unet = swin_unetr("volume/swin_unetr", out_channels=14)
    logits = unet(torch.randn(1, 1, 96, 96, 96))

The decoder is MONAI's (Hatamizadeh et al. 2022, arXiv:2201.01266); so are its sizes, multiples of
32 along each axis. The encoder's mixers, depths and blocks are the spec's.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from hierarch.building import build
from hierarch.needs import require
from hierarch.nn.backbone import to_nchw
from hierarch.nn.stage import Stage, keeping_input, through
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.load import Source, load, override

require("monai", extra="volumes")
from monai.networks.nets.swin_unetr import SwinUNETR  # noqa: E402

STRIDES = (2, 4, 8, 16, 32)
"""Voxels per token of the five maps that the decoder takes, along each axis."""


class Encoder(nn.Module):
    """Volumes (B, in_chans, D, H, W) to the five maps that `SwinUNETR` takes of its `swinViT`:
    each stage's tokens before its blocks, (B, C, D, H, W) at strides 2, 4, 8, 16 and 32.

    The last stage may have no blocks (`depth: 0`), as in the publication; those of another one are
    not run. `model` is the backbone: `hierarch.load_weights(unet.swinViT.model, "monai.pt")` gives
    it weights. Raises `ValueError` for a spec whose strides are others, and for one whose widths
    do not double.

    >>> import torch
    >>> [tuple(m.shape[1:]) for m in Encoder("volume/swin_unetr")(torch.zeros(1, 1, 32, 32, 32))]
    [(48, 16, 16, 16), (96, 8, 8, 8), (192, 4, 4, 4), (384, 2, 2, 2), (768, 1, 1, 1)]
    """

    def __init__(self, spec: Source) -> None:
        super().__init__()
        spec = override(load(spec), {"head": None, "out_indices": None, "output_norm": False})
        _check(spec)
        self.model = build(spec)

    def forward(self, x: Tensor, normalize: bool = True) -> list[Tensor]:
        """`normalize`: with a norm of each token's channels that has no weights."""
        maps, x = [], self.model.embed(x)
        for module in self.model.stages:
            stage = cast(Stage, module)
            x = stage.downsample(x)
            maps.append(to_nchw(F.layer_norm(x, x.shape[-1:]) if normalize else x))
            if len(maps) == len(STRIDES):
                break
            blocks = partial(through, stage.layers)
            x = (keeping_input(blocks) if stage.grad_checkpointing and self.training else blocks)(x)
        return maps


def _check(spec: BackboneSpec) -> None:
    """Raises `ValueError` unless a spec has the maps that the decoder takes."""
    wanted = [(stride,) * 3 for stride in STRIDES]
    if [*spec.strides()] != wanted:
        own = ", ".join("x".join(map(str, stride)) for stride in spec.strides())
        raise ValueError(
            f"{spec.name} should have stages at strides {', '.join(map(str, STRIDES))} along three "
            f"axes; it has {own}"
        )
    widths = [stage.dim for stage in spec.stages]
    if widths != [widths[0] * 2**i for i in range(len(STRIDES))]:
        raise ValueError(f"{spec.name} should have widths that double; it has {widths}")


def swin_unetr(spec: Source = "volume/swin_unetr", *, out_channels: int, **options: Any) -> Any:
    """MONAI's `SwinUNETR` whose encoder is a spec's network: volumes (B, in_chans, D, H, W) to
    logits (B, out_channels, D, H, W).

    `options` are those of `SwinUNETR` for the decoder, such as `norm_name`. The spec gives
    `in_channels`, `feature_size` and what the encoder has. Raises `ValueError` as `Encoder` does,
    and where `feature_size`, the first width, is no multiple of 12.

    >>> type(swin_unetr("volume/swin_unetr", out_channels=14).swinViT).__name__
    'Encoder'
    """
    encoder = Encoder(spec)
    own = encoder.model.spec
    unet: Any = SwinUNETR(
        in_channels=own.stem.in_chans,
        out_channels=out_channels,
        feature_size=own.stages[0].dim,
        depths=(1, 1, 1, 1),  # of the encoder that is replaced
        num_heads=(1, 1, 1, 1),
        **options,
    )
    unet.swinViT = encoder
    return unet
