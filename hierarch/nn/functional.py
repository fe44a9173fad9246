"""The operations that an engine may run in its own way; the body of each is its definition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hierarch.nn.cut import Cut, kinds
from hierarch.nn.ops import op
from hierarch.nn.padding import contiguous
from hierarch.nn.shift_mask import KindMasks, kind_masks, shift_masks
from hierarch.spec.grid import Pair, tokens

if TYPE_CHECKING:
    from hierarch.nn.attention import SelfAttention
    from hierarch.nn.backbone import Backbone
    from hierarch.nn.block import Block
    from hierarch.nn.by_rows import ByRows
    from hierarch.nn.window_mixer import MaskedWindows, WindowMixer

Masks = Sequence[tuple[int, Tensor | None]]
"""(count, mask) for runs of sequences that follow each other: what is added to their attention
logits, (1 or count, heads or 1, N, N), or None."""


@op
def batch(network: Backbone, images: Tensor) -> Tensor | tuple[Tensor, ...]:
    """(B, C, H, W) -> the network's output. No image's output depends on another image."""
    return network.compute(images)


@op
def maps(network: Backbone, images: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
    """(B, C, H, W) -> {i: (B, H_i, W_i, C_i)}: a fold over the stages up to the last one wanted."""
    x, kept = network.embed(images), {}
    for i, stage in enumerate(network.stages[: max(wanted) + 1]):
        x = stage(x)
        if i in wanted:
            kept[i] = x
    return kept


@op
def stage(downsample: nn.Module, blocks: Iterable[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """(B, H, W, in_dim) -> (B, h, w, dim): a fold over the blocks."""
    x = downsample(x)
    for block in blocks:
        x = block(x)
    return x


@op
def block(block: Block, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C): after(x, mixer(before(x)))."""
    return block.after(x, block.mixer(block.before(x)))


@op
def windows(mixer: WindowMixer, x: Tensor) -> Tensor:
    """(B, *grid, C) -> (B, *grid, C): put each token in its slot of a window, mix the windows, and
    take each token back. A slot without a token holds zeros. Windows come kind after kind."""
    batch, *grid, dim = x.shape
    cut = mixer.cut(cast(Pair, tuple(grid)))
    slots, size = constant(Cut.slots, cut, batch, device=x.device), tokens(cut.window)
    padded = x.new_zeros(batch * cut.count * size, dim)
    windows = padded.index_copy(0, slots, x.reshape(-1, dim)).view(-1, size, dim)
    mixed = mixer.mix(windows, cut, cut.runs(batch))
    return mixed.reshape(-1, mixed.shape[-1]).index_select(0, slots).view(batch, *grid, -1)


@op
def masks(mixer: MaskedWindows, cut: Cut, like: Tensor) -> KindMasks:
    """What is added to the attention logits of each kind of window: position bias and shift."""
    of_kinds = kinds(cut.shift)
    if len(of_kinds) == 1:
        return {of_kinds[0]: mixer.bias(cut.window)}
    regions = constant(shift_masks, cut.window, cut.shift, like.dtype, device=like.device)
    return kind_masks(mixer.bias(cut.window), regions, of_kinds)


@op
def self_attention(layer: SelfAttention, x: Tensor, masks: Masks) -> Tensor:
    """(B, N, C) -> (B, N, C): softmax(q kᵀ / √d + mask) v, between two linear layers."""
    q, k, v = layer.split(x)
    return linear(layer.proj, attention(q, k, v, masks))


@op
def attention(q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float | None = None) -> Tensor:
    """(B, heads, N, d), three times -> (B, N, heads * d): softmax(q kᵀ scale + mask) v, heads side
    by side. `scale` is 1 / √d by default (Vaswani et al. 2017, eq. 1)."""
    added = [m.expand(count, -1, -1, -1) for count, m in masks if m is not None]
    mask = torch.cat(added).to(q.dtype) if added else None
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    # a copy even where torch's kernel leaves the heads side by side: exporters decompose that
    # kernel into operators that do not
    return contiguous(out.transpose(1, 2)).flatten(2)


@op
def mlp(mlp: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(..., C) -> (..., C): an MLP of a norm's output."""
    return cast(Tensor, mlp(x if norm is None else norm(x)))


@op
def linear(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C) -> (..., D): a linear layer, and a bias that is not its own."""
    out: Tensor = layer(x)
    return out if bias is None else out + bias


@op
def patches(conv: nn.Module, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H / P, W / P, D): a convolution as large as its stride, which divides H
    and W."""
    out: Tensor = conv(rearrange(x, "b h w c -> b c h w"))
    return rearrange(out, "b c h w -> b h w c")


@op
def by_rows(layer: ByRows, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, ceil(H / P), w, D): a layer in which P rows make one, independently of
    the other rows."""
    return layer.transform(x)


@op
def constant(make: Callable[..., Tensor], *sizes: Any, device: torch.device) -> Tensor:
    """A tensor that follows from sizes alone: make(*sizes, device=device)."""
    return make(*sizes, device=device)
