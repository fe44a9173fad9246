"""Small layers that several modules share, with the published initialization."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hierarch.model.inference import linear


class Linear(nn.Linear):
    """A linear layer that starts from a normal of deviation 0.02 truncated at 2, and no bias.

    Swin Transformer's own initialization, in `reset_parameters`, so that weights are drawn once,
    and drawn again when a model is moved off the meta device.
    """

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, activation: nn.Module | None = None) -> Tensor:
        return linear(x, self, activation)


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
        return x * mask / keep

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
