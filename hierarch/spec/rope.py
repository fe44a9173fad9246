"""The spec of a rotary position embedding in two dimensions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from hierarch.spec.base import Spec


class RopeSpec(Spec):
    """Queries and keys are rotated by angles that follow from a token's row and column, so that
    their product depends on how far apart two tokens are (Su et al. 2021, arXiv:2104.09864,
    section 3.2; in two dimensions and relative to the map as in DINOv3, Siméoni et al. 2025,
    arXiv:2508.10104, section 3.2). Nothing is learned. Tokens outside of the grid are not rotated.
    """

    temperature: Annotated[float, Strict(), Field(gt=1, le=1e9, allow_inf_nan=False)] = 100.0
    """Wave lengths rise from half of a map's side to almost this many times as much."""
