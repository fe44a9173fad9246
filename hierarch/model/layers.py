"""Small layers that several modules share, with the published initialization."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from hierarch.model.inference import compiled, is_hooked_inside, linear, unwatched
from hierarch.model.training import can_repeat, trained_linear, trained_mlp, trains


class PlainLinear(nn.Linear):
    """A linear layer that starts from a normal of deviation 0.02 truncated at 2, and no bias.

    Swin Transformer's own initialization, in `reset_parameters`, so that weights are drawn once,
    and drawn again when a model is moved off the meta device.
    """

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Linear(PlainLinear):
    """The same, multiplied in the fastest way there is, and with its weight packed where a network
    is asked to: nobody but the layer itself reads it."""

    def forward(
        self, x: Tensor, activation: nn.Module | None = None, *, bias: Tensor | None = None
    ) -> Tensor:
        """(..., C) -> (..., D): with an activation that follows, and with another bias."""
        weight, bias = self.weight, self.bias if bias is None else bias
        if not trains(x, weight):
            return linear(x, weight, bias, activation)
        out = trained_linear(x, weight, bias)
        return out if activation is None else cast(Tensor, activation(out))


class PatchConv(nn.Conv2d):
    """(B, C, H, W) -> (B, D, H / P, W / P): a convolution as large as its stride, on sizes that it
    divides. It is a linear layer over each patch, and run as one where a matrix multiplication is
    the faster way."""

    def forward(self, x: Tensor) -> Tensor:
        # a convolution's training step is compiled for one size: torch fixes the layout of what is
        # kept for the gradient
        if not (unwatched(x) or (compiled() and x.device.type == "cpu")):
            return super().forward(x)
        h, w = self.stride
        rows = rearrange(x, "b c (nh h) (nw w) -> b nh nw (c h w)", h=h, w=w)
        return rearrange(linear(rows, self.weight.flatten(1), self.bias), "b h w c -> b c h w")


class Mlp(nn.Module):
    """(..., dim) -> (..., dim): two linear layers with an activation between them."""

    def __init__(
        self, dim: int, hidden_dim: int, *, activation: nn.Module, bias: bool, drop_rate: float
    ) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim, bias=bias)
        self.act = activation
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.fc1(x, self.act))
        out: Tensor = self.drop(self.fc2(x))
        return out

    def is_trained_whole(self) -> bool:
        """Whether it is two linear layers and an activation, all trained, and seen by nobody."""
        linears = type(self.fc1) is Linear and type(self.fc2) is Linear
        trained = all(weight.requires_grad for weight in self.parameters())
        return linears and trained and not self.drop.p and not is_hooked_inside(self)


def mlp_of(mlp: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(..., C) -> (..., C): an MLP of a norm's output, with less kept for the backward pass than
    by calling one after the other, where that makes no other difference."""
    norm = norm or nn.Identity()
    if (
        type(mlp) is Mlp
        and type(mlp.fc1) is Linear
        and trains(x, mlp.fc1.weight)
        and mlp.is_trained_whole()
        and can_repeat(norm, mlp.act)
    ):
        return trained_mlp(x, norm, mlp.fc1, mlp.act, mlp.fc2)
    return cast(Tensor, mlp(norm(x)))


class DropPath(nn.Module):
    """Drops a residual branch, image by image, in training (Huang et al. 2016, arXiv:1603.09382).

    What is kept is scaled by 1 / (1 - rate), so that the expected value stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al. 2021, arXiv:2103.17239, eq. 4)."""

    def __init__(self, dim: int, *, init: float) -> None:
        super().__init__()
        self.init = init
        self.gamma = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gamma, self.init)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def layer_scale(dim: int, init: float | None) -> nn.Module:
    """A factor per channel that starts at `init`; none where that is None."""
    return nn.Identity() if init is None else LayerScale(dim, init=init)
