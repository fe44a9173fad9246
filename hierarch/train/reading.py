"""Images read from files, in the channels that a network takes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import torch

from hierarch.errors import DataError

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What PIL and numpy raise for a damaged image."""


def read_image(path: Path, in_chans: int) -> Any:
    """The image of a file, in gray or in color. Raises `DataError`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
        return with_channels(image, in_chans, where=str(path))
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def with_channels(image: Any, in_chans: int, *, where: str) -> Any:
    """An image of PIL in gray or in color, or a tensor (C, H, W) of another number of channels."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        channels = image.shape[2]
        if channels not in (1, 3):
            if channels != in_chans:
                raise DataError(
                    f"{where} has {channels} channels, and the network takes {in_chans}: set "
                    f"spec.stem.in_chans={channels}"
                )
            return torch.from_numpy(image.copy()).permute(2, 0, 1)
        image = Image.fromarray(image[..., 0] if channels == 1 else image)
    if in_chans not in (1, 3):
        raise DataError(
            f"{where} has {len(image.getbands())} channels, and the network takes {in_chans}: set "
            "spec.stem.in_chans to 1 or 3"
        )
    return image.convert("L" if in_chans == 1 else "RGB")
