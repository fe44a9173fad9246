"""The shapes of a checkpoint's weights, from which a spec is inferred."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch

from hierarch.errors import WeightsError
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.grid import Sides

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")


class Undetermined(WeightsError):
    """The weights, which may all be there, do not determine some field of the spec."""

    def __init__(
        self, message: str, *, window: Sides | None = None, like: BackboneSpec | None = None
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


def ratio(hidden: int, dim: int) -> float:
    """The `ratio` of two widths, by which int(dim * ratio) is the hidden one."""
    quotient = hidden / dim
    # 15 / 11 * 11 is a little less than 15
    return quotient if int(dim * quotient) == hidden else math.nextafter(quotient, math.inf)


def hoisted(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fields of a spec from those of its stages: what all stages share stands at the top. So does a
    downsampling that all but the first share, which takes none from the top."""
    top: dict[str, Any] = {}
    for name in dict.fromkeys(name for stage in stages for name in stage):
        first, *others = (stage.get(name) for stage in stages[name == "downsample" :])
        if name not in ("dim", "depth") and all(other == first for other in others):
            top[name] = first
    own = [{n: v for n, v in stage.items() if n not in top} for stage in stages]
    if "downsample" in stages[0]:
        own[0]["downsample"] = stages[0]["downsample"]
    return top | {"stages": own}
