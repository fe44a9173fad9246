"""The shapes of a checkpoint's weights, for reading a spec off them."""

from __future__ import annotations

import re

import torch

from hierarch.errors import WeightsError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Pair

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")


class Untold(WeightsError):
    """Of a checkpoint that may well be whole: its weights do not tell what the spec has to say."""

    def __init__(
        self, message: str, *, window: Pair | None = None, like: BackboneSpec | None = None
    ) -> None:
        super().__init__(message)
        self.window = window
        """A window with which a network has weights of these shapes, as others do."""
        self.like = like
        """A network with weights of these shapes, as others have."""


class Shapes(dict[str, torch.Size]):
    """Our names and their shapes, of a file that may lack any of them."""

    def of(self, name: str, dims: int) -> torch.Size:
        """A weight's shape. Raises `WeightsError` unless it is there, with so many dimensions."""
        shape = self.get(name)
        if shape is None:
            raise WeightsError(f"the checkpoint is not whole: missing 1 ({name})")
        if len(shape) != dims or 0 in shape:
            raise WeightsError(
                f"{name} should have {dims} dimensions and none empty, got shape {tuple(shape)}"
            )
        return shape

    def depths(self) -> dict[int, int]:
        """Blocks of each stage, as far as their numbers tell."""
        found: dict[int, int] = {}
        for i, j in (map(int, block.groups()) for block in map(_BLOCK.match, self) if block):
            found[i] = max(found.get(i, 0), j + 1)
        return dict(sorted(found.items()))
