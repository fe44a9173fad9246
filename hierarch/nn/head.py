"""The classifier."""

from __future__ import annotations

from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.layers import build_activation, build_norm
from hierarch.spec.head import HeadSpec
from hierarch.spec.parts import NormSpec


class Head(nn.Module):
    """(B, H, W, C) -> (B, num_classes): the mean over tokens, then a linear layer.

    The map is normed before it comes here, or its mean here where the spec says `pool_first`.
    """

    def __init__(self, dim: int, spec: HeadSpec, *, norm: NormSpec) -> None:
        super().__init__()
        hidden = spec.hidden_dim(dim)
        self.norm = build_norm(norm, dim) if spec.pool_first else nn.Identity()
        self.drop = nn.Dropout(spec.drop_rate)
        self.hidden = HiddenLayer(dim, hidden, spec, norm=norm) if hidden else nn.Identity()
        classes = spec.num_classes
        self.fc = init.linear(hidden or dim, classes) if classes else nn.Identity()

    def take_classifier(self, other: Head) -> None:
        """Takes another head's classifier for its own, and its hidden layer where only one of the
        two heads has one."""
        self.fc = other.fc
        if isinstance(self.hidden, nn.Identity) != isinstance(other.hidden, nn.Identity):
            self.hidden = other.hidden

    def forward(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        pooled: Tensor = self.norm(x.mean(dim=(1, 2), keepdim=True)).flatten(1)
        pooled = self.drop(pooled)
        return pooled if pre_logits else functional.linear(self.fc, self.hidden(pooled))


class HiddenLayer(nn.Module):
    """(B, dim) -> (B, hidden_dim): linear, activation, norm."""

    def __init__(self, dim: int, hidden_dim: int, spec: HeadSpec, *, norm: NormSpec) -> None:
        super().__init__()
        self.fc = init.linear(dim, hidden_dim)
        self.act = build_activation(spec.activation)
        self.norm = build_norm(norm, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(functional.linear(self.fc, x))
        normed: Tensor = self.norm(x[:, None, None]).flatten(1)
        return normed
