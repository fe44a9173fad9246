"""Small layers that several modules share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.spec.parts import ActivationSpec, NormSpec
from hierarch.spec.plan import BlockPlan


class Mlp(nn.Module):
    """(..., C) -> (..., C): two linear layers with an activation between them.

    >>> import torch
    >>> from hierarch import load
    >>> Mlp(load("swin_tiny").plan()[0].blocks[0])(torch.zeros(2, 7, 7, 96)).shape
    torch.Size([2, 7, 7, 96])
    """

    def __init__(self, block: BlockPlan) -> None:
        super().__init__()
        self.fc1 = init.linear(block.dim, block.hidden_dim, bias=block.mlp_bias)
        self.act = build_activation(block.activation)
        self.drop = nn.Dropout(block.drop_rate)
        self.fc2 = init.linear(block.hidden_dim, block.dim, bias=block.mlp_bias)

    def hidden(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D): the hidden layer."""
        activated: Tensor = self.act(functional.linear(self.fc1, x))
        return activated

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(functional.linear(self.fc2, self.drop(self.hidden(x))))
        return out


class DropPath(nn.Module):
    """Drops a residual branch, image by image, in training (Huang et al. 2016, arXiv:1603.09382).

    The branches that stay are scaled by 1 / (1 - rate), so that the expected value stays.
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
    """A factor per channel that starts at `init`; `nn.Identity` where that is None."""
    return nn.Identity() if init is None else LayerScale(dim, init=init)


PER_TOKEN: set[type[nn.Module]] = {
    *(nn.Identity, nn.Dropout, nn.Linear, nn.LayerNorm, nn.Sequential, nn.ModuleList),
    *(nn.GELU, nn.ReLU, nn.SiLU, Mlp, DropPath, LayerScale),
}
"""Types whose modules work on each token, (..., C), alone, whatever the other tokens are. A
replaced layer, or one of a subclass, may not."""


def per_token(cls: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: adds a type to `PER_TOKEN`.

    >>> @per_token
    ... class Double(nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    """
    PER_TOKEN.add(cls)
    return cls


def build_norm(spec: NormSpec, dim: int, *, init: float = 1) -> nn.Module:
    """The spec's module. If it norms token by token, its type is added to `PER_TOKEN`."""
    norm = spec.build(dim, init=init)
    if spec.per_token:
        per_token(type(norm))
    return norm


def build_activation(spec: ActivationSpec) -> nn.Module:
    """The spec's module, which works number by number, so that its type is in `PER_TOKEN`."""
    activation = spec.build()
    per_token(type(activation))
    return activation
