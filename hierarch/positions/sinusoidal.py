"""The sinusoidal position embedding, in two dimensions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.spec.grid import Sides
from hierarch.spec.parts import PositionSpec
from hierarch.spec.registry import register


@register
class SinusoidalSpec(PositionSpec):
    """Sines and cosines of a token's row and column, added to the tokens. Nothing is learned, and
    it fits any grid."""

    formula: ClassVar[str] = "0: a constant is added, which is free"
    paper: ClassVar[str] = (
        "Vaswani et al. 2017, arXiv:1706.03762, section 3.5; in two dimensions as in MoCo v3, "
        "Chen et al. 2021, arXiv:2104.02057, section 5"
    )

    type: Literal["sinusoidal"] = "sinusoidal"
    """Sines and cosines of row and column."""
    temperature: Annotated[float, Strict(), Field(gt=1, le=1e9, allow_inf_nan=False)] = 10_000.0
    """The longest wave is this times 2π tokens long."""

    def check(self, *, dim: int) -> None:
        if dim % 4:
            raise ValueError(f"dim={dim} is not divisible by 4, for the sines and cosines")

    def macs(self, *, dim: int, grid: Sides) -> int:
        return 0

    def params(self, *, dim: int) -> int:
        return 0

    def build(self, dim: int) -> nn.Module:
        return SinusoidalPosition(temperature=self.temperature)


class SinusoidalPosition(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, dim = x.shape
        table = functional.constant(sinusoids, h, w, dim, self.temperature, device=x.device)
        return x + table.to(x.dtype)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}"


def sinusoids(h: int, w: int, dim: int, temperature: float, *, device: torch.device) -> Tensor:
    """(h, w, dim): sin x, cos x, sin y and cos y, each of dim / 4 wave lengths, in float32."""
    wave = torch.arange(dim // 4, device=device, dtype=torch.float64) / (dim // 4)
    frequencies = temperature**-wave
    ys, xs = (torch.arange(n, device=device).double()[:, None] * frequencies for n in (h, w))
    rows, columns = (torch.cat([at.sin(), at.cos()], -1) for at in (ys, xs))
    by_column, by_row = columns[None].expand(h, -1, -1), rows[:, None].expand(-1, w, -1)
    return torch.cat([by_column, by_row], -1).float()
