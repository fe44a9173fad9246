"""The rotary position embedding (Su et al. 2021, arXiv:2104.09864), in two dimensions as in DINOv3
(Siméoni et al. 2025, arXiv:2508.10104)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarch.nn import functional
from hierarch.spec.grid import Sides, tokens


def rotated(x: Tensor, grid: Sides, *, temperature: float) -> Tensor:
    """(..., P + h*w, d) -> the same: each token's pairs of channels j and j + d/2, rotated by its
    angles; d is a multiple of 4. The first P tokens are outside of the grid, and stay as they are.

    The angles are in float32 at least, and so is the rotation.

    >>> x = torch.randn(2, 1 + 6, 8)
    >>> torch.equal(rotated(x, (2, 3), temperature=100)[:, 0], x[:, 0])
    True
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    outside = x.shape[-2] - tokens(grid)
    made = (*grid, outside, x.shape[-1], temperature, dtype)
    sin, cos = functional.constant(rotation, *made, device=x.device).unbind()
    # Su et al., eq. (34): a cos - b sin, b cos + a sin
    a, b = x.to(dtype).chunk(2, -1)
    turned = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)
    return torch.cat(turned, -1).to(x.dtype)


def rotation(
    h: int,
    w: int,
    outside: int,
    dim: int,
    temperature: float,
    dtype: torch.dtype,
    *,
    device: torch.device,
) -> Tensor:
    """(2, outside + h*w, dim / 2): sines and cosines of each token's angles, those of its row
    before those of its column. Tokens outside of the grid have angles of 0.

    A token at y, from -1 to 1 over the h rows, has angles 2π y / λ, of dim / 4 wave lengths
    λ = temperature^(4k / dim). Both are in float32, as in the published code.
    """
    k = torch.arange(dim // 4, device=device, dtype=torch.float32)
    waves = (temperature ** (2 * k / (dim // 2))).to(dtype)

    def angles(side: int) -> Tensor:
        places = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side
        return 2 * math.pi * (2 * places - 1).to(dtype)[:, None] / waves

    by_row = angles(h)[:, None].expand(-1, w, -1)
    by_column = angles(w)[None].expand(h, -1, -1)
    placed = F.pad(torch.cat([by_row, by_column], -1).flatten(0, 1), (0, 0, outside, 0))
    return torch.stack([placed.sin(), placed.cos()])
