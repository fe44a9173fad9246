"""Weights made to fit another window, another resolution, another number of image channels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hierarch.errors import WeightsError
from hierarch.report.weights import Resampled
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Pair, pair
from hierarch.spec.windows import WindowedSpec

TABLE = ".mixer.relative_position_bias_table"
POSITION = "position_embedding.table"
STEM = "stem.proj.weight"


def adapt(
    name: str, tensor: Tensor, like: Tensor, spec: BackboneSpec
) -> tuple[Tensor, Resampled | None]:
    """The tensor in the shape of our weight `like`, and what had to be done to it.

    Raises `WeightsError` for a shape that nothing published fits to the other.
    """
    check_numbers(name, tensor)
    if tensor.shape == like.shape:
        return tensor, None
    found, how = tuple(tensor.shape), ""
    match found:
        case shape if 0 in shape:
            pass
        case (1, *_, dim) if name == POSITION and len(found) in (3, 4) and dim == like.shape[-1]:
            tensor, how = _position(tensor, like)
        case (_, heads) if name.endswith(TABLE) and heads == like.shape[1]:
            tensor, how = _table(name, tensor, _window(name, spec))
        case (dim, _, _, _) if name == STEM and dim == like.shape[0]:
            tensor, how = _channels(tensor, like.shape[1])
    if tensor.shape != like.shape:
        raise WeightsError(f"{name} should have shape {(*like.shape,)}, got {found}")
    return tensor, Resampled(name, found, tuple(like.shape), how) if how else None


def is_shaped(name: str, shape: torch.Size, like: Tensor) -> bool:
    """Whether a weight has our shape as it is; a position embedding may lie flat."""
    flat = name == POSITION and len(shape) == 3 and shape[::2] == like.shape[::3]
    return shape == like.shape or (flat and shape.numel() == like.numel())


def is_plain(tensor: Tensor) -> bool:
    """Whether the numbers are there, one by one: neither sparse nor on the meta device."""
    return tensor.layout is torch.strided and not tensor.is_meta


def check_numbers(name: str, tensor: Tensor) -> None:
    """Raise `WeightsError` for what is no plain tensor of floating-point numbers."""
    if not is_plain(tensor):
        kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise WeightsError(f"{name} should be a plain tensor, got a {kind} one")
    # _x2: two numbers in a byte, which torch cannot read as another type
    if not tensor.is_floating_point() or str(tensor.dtype).endswith("_x2"):
        raise WeightsError(f"{name} should be of floating-point numbers, got {tensor.dtype}")


def _position(tensor: Tensor, like: Tensor) -> tuple[Tensor, str]:
    """(1, h*w, C) or (1, h, w, C), a square where it lies flat, to the model's grid."""
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


def _window(name: str, spec: BackboneSpec) -> Pair:
    _, i, _, j, *_ = name.split(".")
    mixer = spec.plan()[int(i)].mixers[int(j)]
    assert isinstance(mixer, WindowedSpec), f"{name} belongs to a window"
    return pair(mixer.window_size)


def _table(name: str, tensor: Tensor, window: Pair) -> tuple[Tensor, str]:
    """((2w-1)², heads) of a square window to another one, as Microsoft's code does it."""
    side = math.isqrt(len(tensor))
    if side**2 != len(tensor) or side % 2 == 0:
        raise WeightsError(
            f"{name} has {len(tensor)} rows, which no square window has; only the table of a "
            "square window is resized"
        )
    image = rearrange(tensor, "(h w) heads -> 1 heads h w", h=side)
    resized = _bicubic(image, (2 * window[0] - 1, 2 * window[1] - 1))
    return rearrange(resized, "1 heads h w -> (h w) heads"), "bicubic"


def _bicubic(image: Tensor, size: Pair) -> Tensor:
    resized = F.interpolate(image.float(), size=size, mode="bicubic", align_corners=False)
    return resized.to(image.dtype)


def _channels(tensor: Tensor, in_chans: int) -> tuple[Tensor, str]:
    """Fewer image channels to one: their sum. Otherwise repeated, and scaled to keep the sum."""
    had = tensor.shape[1]
    if in_chans == 1:
        return tensor.sum(dim=1, keepdim=True), "summed over the image's channels"
    times = -(-in_chans // had)
    repeated = tensor.repeat(1, times, 1, 1)[:, :in_chans] * (had / in_chans)
    return repeated, "the image's channels repeated, and scaled"
