"""Encoders for segmentation_models_pytorch: every preset, as "hierarch-NAME", and any spec.

    import segmentation_models_pytorch as smp
    from hierarch.integrations.segmentation_models import register

    unet = smp.Unet("hierarch-swin_tiny", encoder_weights=None, classes=2)
    fpn = smp.FPN(register("my_net.yaml"), encoder_weights=None, classes=2)

As of its own encoders that start with patches of 4 pixels, the map at half the image's size has no
channels. Therefore FPN, which takes four maps, needs `encoder_depth=5`.
"""

from __future__ import annotations

from torch import Tensor, nn

from hierarch.building import build
from hierarch.needs import require
from hierarch.spec.load import Source, load, of_images, override, presets

require("segmentation_models_pytorch", extra="segmentation")
from segmentation_models_pytorch.encoders import encoders  # noqa: E402

PREFIX = "hierarch-"


def register(spec: Source, name: str | None = None) -> str:
    """Make a spec an encoder, and return the name that `smp.Unet` and the others know it by, which
    is "hierarch-" and the spec's own name if none is given.

    An encoder of the same name is replaced. A model that was saved with `save_pretrained` is loaded
    after the same call.

    >>> register("swin_small")
    'hierarch-swin_small'
    """
    spec = of_images(load(spec))
    name = PREFIX + spec.name if name is None else name
    _add(name, spec)
    return name


def _add(name: str, source: Source) -> None:
    encoders[name] = {"encoder": Encoder, "pretrained_settings": {}, "params": {"spec": source}}


class Encoder(nn.Module):
    """Images (B, in_channels, H, W) to `depth` + 1 maps: the image itself, then one of each stride
    2, 4, 8 and so on, without channels for a stride below that of the first stage.

    `model` is the backbone: `hierarch.load_weights(unet.encoder.model, "swin.pth")` gives it
    weights. Raises `ValueError` for a network whose strides are not these, for a `depth` that is
    not from 1 to 5, and for an `output_stride` that is finer than the last map's.

    >>> Encoder("swin_tiny").out_channels
    [3, 0, 96, 192, 384, 768]
    """

    def __init__(self, spec: Source, depth: int = 5, output_stride: int = 32) -> None:
        super().__init__()
        if not 1 <= depth <= 5:
            raise ValueError(f"encoder_depth={depth} should be from 1 to 5")
        self.output_stride = 2**depth
        self.make_dilated(output_stride)
        spec = override(load(spec), {"head": None, "out_indices": None})
        wanted = [(2**i, 2**i) for i in range(1, depth + 1)]
        strides = [stride for stride in spec.strides() if stride in wanted]
        if not strides or strides != wanted[-len(strides) :]:
            own = ", ".join(str(h) if h == w else f"{h}x{w}" for h, w in spec.strides())
            raise ValueError(
                f"encoder_depth={depth} needs stages whose strides double up to {2**depth}; "
                f"those of {spec.name} are {own}"
            )
        self.model = build(spec, out_indices=tuple(range(len(strides))))
        self.set_in_channels(3)
        self.empty = range(1, 1 + depth - len(strides))
        """Powers of 2: the strides of maps without channels."""

    @property
    def out_channels(self) -> list[int]:
        """Channels of each map."""
        spec = self.model.spec
        return [spec.stem.in_chans, *(0 for _ in self.empty), *self.model.feature_info.channels()]

    def forward(self, x: Tensor) -> list[Tensor]:
        b, _, h, w = x.shape
        empty = [x.new_empty(b, 0, h // 2**i, w // 2**i) for i in self.empty]
        return [x, *empty, *self.model(x)]

    def set_in_channels(self, in_channels: int, pretrained: bool = False) -> None:
        """Take images of so many channels; other than before, all weights are drawn anew."""
        stem = self.model.spec.stem
        if in_channels != stem.in_chans:
            taking = stem.model_copy(update={"in_chans": in_channels})
            self.model = build(self.model.spec, stem=taking)

    def make_dilated(self, output_stride: int) -> None:
        """Raises `ValueError` for an output stride below 2^depth: no stage can be dilated."""
        if output_stride < self.output_stride:
            raise ValueError(
                f"encoder_output_stride={output_stride} would need dilated stages, which hierarch "
                f"does not have; give encoder_depth={output_stride.bit_length() - 1}"
            )


for preset in presets(axes=2):
    _add(PREFIX + preset, preset)
