"""The shapes of a checkpoint's weights, from which a spec is inferred."""

from __future__ import annotations

import re

import torch

from hierarch.errors import WeightsError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Pair

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")


class Undetermined(WeightsError):
    """The weights, which may all be there, do not determine some field of the spec."""

    def __init__(
        self, message: str, *, window: Pair | None = None, like: BackboneSpec | None = None
    ) -> None:
        super().__init__(message)
        self.window = window
        """A window, of several, with which a network has weights of these shapes."""
        self.like = like
        """A network, of several, that has weights of these shapes."""


class Shapes(dict[str, torch.Size]):
    """Shapes by our names; any may be missing in a damaged checkpoint."""

    def of(self, name: str, dims: int) -> torch.Size:
        """A weight's shape. Raises `WeightsError` unless it has `dims` dimensions, none empty."""
        shape = self.get(name)
        if shape is None:
            raise WeightsError(f"the checkpoint is incomplete: missing 1 ({name})")
        if len(shape) != dims or 0 in shape:
            raise WeightsError(
                f"{name} should have {dims} dimensions and none empty, got shape {tuple(shape)}"
            )
        return shape

    def depths(self) -> dict[int, int]:
        """The number of blocks of each stage, from the largest index of a block."""
        depths: dict[int, int] = {}
        for i, j in (map(int, block.groups()) for block in map(_BLOCK.match, self) if block):
            depths[i] = max(depths.get(i, 0), j + 1)
        return dict(sorted(depths.items()))
