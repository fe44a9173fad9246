"""Resampling of weights to another window, resolution, or number of image channels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hierarch.errors import WeightsError
from hierarch.report.weights import Resampled
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides
from hierarch.spec.windows import WindowedSpec

TABLE = ".mixer.relative_position_bias_table"
POSITION = "position_embedding.table"
STEM = "stem.proj.weight"


def adapt(
    name: str, tensor: Tensor, like: Tensor, spec: BackboneSpec
) -> tuple[Tensor, Resampled | None]:
    """The tensor resampled to the shape of our weight `like`, and how; None if it had that shape.

    Raises `WeightsError` if no published method resamples the one shape to the other.
    """
    check_numbers(name, tensor)
    if tensor.shape == like.shape:
        return tensor, None
    given, how = tuple(tensor.shape), ""
    match given:
        case shape if 0 in shape:
            pass
        case (1, *_, dim) if name == POSITION and len(given) in (3, 4) and dim == like.shape[-1]:
            tensor, how = _position(tensor, like)
        case (_, heads) if name.endswith(TABLE) and heads == like.shape[1]:
            tensor, how = _table(name, tensor, _window(name, spec))
        case (dim, _, *sides) if name == STEM and dim == like.shape[0] and sides:
            if len(given) == 4 and like.ndim == 5:
                tensor, how = _inflated(tensor, like.shape[2])
            else:
                tensor, how = _channels(tensor, like.shape[1])
    if tensor.shape != like.shape:
        raise WeightsError(f"{name} should have shape {(*like.shape,)}, got {given}")
    return tensor, Resampled(name, given, tuple(like.shape), how) if how else None


def is_shaped(name: str, shape: torch.Size, like: Tensor) -> bool:
    """True if a weight has our shape. A position embedding may also be (1, h*w, C)."""
    flat = name == POSITION and len(shape) == 3 and shape[::2] == like.shape[::3]
    return shape == like.shape or (flat and shape.numel() == like.numel())


def is_plain(tensor: Tensor) -> bool:
    """True if the tensor is dense and has data: neither sparse nor on the meta device."""
    return tensor.layout is torch.strided and not tensor.is_meta


def check_numbers(name: str, tensor: Tensor) -> None:
    """Raise `WeightsError` unless the tensor is dense, has data, and is of floating point."""
    if not is_plain(tensor):
        kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise WeightsError(f"{name} should be a plain tensor, got a {kind} one")
    # _x2: two numbers in a byte, which torch cannot read as another type
    if not tensor.is_floating_point() or str(tensor.dtype).endswith("_x2"):
        raise WeightsError(f"{name} should be of floating-point numbers, got {tensor.dtype}")


def _position(tensor: Tensor, like: Tensor) -> tuple[Tensor, str]:
    """(1, h*w, C) of a square grid, or (1, h, w, C) -> the shape of `like`, and how."""
    if tensor.ndim == 3 and tensor.numel() == like.numel():
        return tensor.view(like.shape), ""
    if tensor.ndim == 3:
        side = math.isqrt(tensor.shape[1])
        if side**2 != tensor.shape[1]:
            return tensor, ""
        tensor = rearrange(tensor, "1 (h w) c -> 1 h w c", h=side)
    image = rearrange(tensor, "1 h w c -> 1 c h w")
    return rearrange(
        _bicubic(image, (like.shape[1], like.shape[2])), "1 c h w -> 1 h w c"
    ), "bicubic"


def _window(name: str, spec: BackboneSpec) -> Sides:
    _, i, _, j, *_ = name.split(".")
    mixer = spec.plan()[int(i)].mixers[int(j)]
    assert isinstance(mixer, WindowedSpec), f"{name} belongs to a window"
    return mixer.window


def _table(name: str, tensor: Tensor, window: Sides) -> tuple[Tensor, str]:
    """((2w-1)², heads) of a square window -> the table of another window, and how.

    Bicubic on the grid of offsets, as in microsoft/Swin-Transformer's utils.py. An image's table
    serves every offset in time of a video's, as in SwinTransformer/Video-Swin-Transformer.
    """
    frames, *flat = window if len(window) == 3 else (0, *window)
    if frames and len(tensor) == math.prod(2 * side - 1 for side in flat):
        return tensor.repeat(2 * frames - 1, 1), "repeated along the frames"
    side = math.isqrt(len(tensor))
    if frames or side**2 != len(tensor) or side % 2 == 0:
        raise WeightsError(
            f"{name} has {len(tensor)} rows, which no square window has; only the table of a "
            "square window is resized"
        )
    image = rearrange(tensor, "(h w) heads -> 1 heads h w", h=side)
    resized = _bicubic(image, (2 * window[0] - 1, 2 * window[1] - 1))
    return rearrange(resized, "1 heads h w -> (h w) heads"), "bicubic"


def _bicubic(image: Tensor, size: Sides) -> Tensor:
    resized = F.interpolate(image.float(), size=size, mode="bicubic", align_corners=False)
    return resized.to(image.dtype)


def _inflated(tensor: Tensor, frames: int) -> tuple[Tensor, str]:
    """(C, channels, h, w) -> (C, channels, frames, h, w): an image's patches for a video's, of
    which the frames are averaged, as in SwinTransformer/Video-Swin-Transformer."""
    repeated = tensor[:, :, None].repeat(1, 1, frames, 1, 1) / frames
    return repeated, "repeated along the frames, and averaged"


def _channels(tensor: Tensor, in_chans: int) -> tuple[Tensor, str]:
    """(C, channels, h, w) -> (C, in_chans, h, w), and how: summed to one channel, else repeated.

    Repeated channels are scaled by channels / in_chans, as in timm's adapt_input_conv.
    """
    channels = tensor.shape[1]
    if in_chans == 1:
        return tensor.sum(dim=1, keepdim=True), "summed over the image's channels"
    times = -(-in_chans // channels)
    repeated = tensor.repeat(1, times, *[1] * (tensor.ndim - 2))[:, :in_chans]
    repeated = repeated * (channels / in_chans)
    return repeated, "the image's channels repeated, and scaled"
