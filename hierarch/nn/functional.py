"""What several modules compute. `hierarch.engine` may run each function in its own way: therefore
they are called by the name of this module, `functional.linear(...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.nn.padding import contiguous

if TYPE_CHECKING:
    from hierarch.nn.by_rows import ByRows

Masks = Sequence[tuple[int, Tensor | None]]
"""(count, mask) for runs of sequences that follow each other: what is added to their attention
logits, (1 or count, heads or 1, N, N), or None."""


def attention(q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None) -> Tensor:
    """(B, heads, N, d), three times -> (B, N, heads * d): softmax(q kᵀ scale + mask) v, heads side
    by side. `scale` is 1 / √d by default (Vaswani et al. 2017, eq. 1)."""
    added = [m.expand(count, -1, -1, -1) for count, m in masks if m is not None]
    mask = torch.cat(added).to(q.dtype) if added else None
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    # a copy even where torch's kernel leaves the heads side by side: exporters decompose that
    # kernel into operators that do not
    return contiguous(out.transpose(1, 2)).flatten(2)


def mlp(mlp: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(..., C) -> (..., C): an MLP of a norm's output."""
    return cast(Tensor, mlp(x if norm is None else norm(x)))


def linear(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C) -> (..., D): a linear layer, and a bias that is not its own."""
    out: Tensor = layer(x)
    return out if bias is None else out + bias


def patches(conv: nn.Module, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H / P, W / P, D): a convolution as large as its stride, which divides H
    and W."""
    out: Tensor = conv(rearrange(x, "b ... c -> b c ..."))
    return rearrange(out, "b c ... -> b ... c")


def by_rows(layer: ByRows, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, ceil(H / P), w, D): a layer in which P rows make one, independently of
    the other rows."""
    return layer.transform(x)


def constant(make: Callable[..., Tensor], *sizes: Any, device: torch.device) -> Tensor:
    """A tensor that follows from sizes alone: make(*sizes, device=device)."""
    return make(*sizes, device=device)
