"""The classifier."""

from __future__ import annotations

from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.extra_tokens import without_extra
from hierarch.nn.layers import build_activation, build_norm
from hierarch.spec.head import HeadSpec
from hierarch.spec.parts import NormSpec


class Head(nn.Module):
    """(B, H, W, C) -> (B, num_classes): the mean over the grid's tokens, then a linear layer.

    Or (B, 1, P + N, C), with P tokens outside of the grid, and the class token in place of the
    mean. The map is normed before it comes here, or its mean here where the spec says `pool_first`.
    """

    def __init__(
        self,
        dim: int,
        spec: HeadSpec,
        *,
        norm: NormSpec,
        axes: int,
        extra_tokens: int,
        classifiers: int,
    ) -> None:
        super().__init__()
        hidden = spec.hidden_dim(dim)
        self.axes = axes
        self.pool, self.extra_tokens, self.classifiers = spec.pool, extra_tokens, classifiers
        self.norm = build_norm(norm, dim) if spec.pool_first else nn.Identity()
        self.drop = nn.Dropout(spec.drop_rate)
        self.hidden = HiddenLayer(dim, hidden, spec, norm=norm) if hidden else nn.Identity()
        classes = spec.num_classes
        self.fc = init.linear(hidden or dim, classes) if classes else nn.Identity()
        self.fc_distilled: nn.Module | None = None
        if classifiers == 2:
            self.fc_distilled = init.linear(hidden or dim, classes) if classes else nn.Identity()

    def take_classifier(self, other: Head) -> None:
        """Takes another head's classifier for its own, and its hidden layer where only one of the
        two heads has one."""
        self.fc, self.fc_distilled = other.fc, other.fc_distilled
        if isinstance(self.hidden, nn.Identity) != isinstance(other.hidden, nn.Identity):
            self.hidden = other.hidden

    def forward(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        pooled = self.drop(self.norm(self.pooled(x)).flatten(1, 2))
        if self.fc_distilled is None:
            pooled = pooled.flatten(1)
            return pooled if pre_logits else functional.linear(self.fc, self.hidden(pooled))
        if pre_logits:
            mean: Tensor = pooled.mean(1)
            return mean
        token, distilled = self.hidden(pooled[:, 0]), self.hidden(pooled[:, 1])
        logits = functional.linear(self.fc, token) + functional.linear(self.fc_distilled, distilled)
        return logits / 2

    def pooled(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 1, 1 or 2, C): the tokens that are classified."""
        if self.pool == "mean":
            grid = without_extra(x, self.extra_tokens) if self.extra_tokens else x
            mean: Tensor = grid.mean(dim=tuple(range(1, self.axes + 1)))
            return mean[:, None, None]
        return x[:, :, : self.classifiers]


class HiddenLayer(nn.Module):
    """(B, dim) -> (B, hidden_dim): linear, activation, norm."""

    def __init__(self, dim: int, hidden_dim: int, spec: HeadSpec, *, norm: NormSpec) -> None:
        super().__init__()
        self.fc = init.linear(dim, hidden_dim)
        self.act = build_activation(spec.activation)
        self.norm = build_norm(spec.hidden_norm or norm, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(functional.linear(self.fc, x))
        normed: Tensor = self.norm(x[:, None, None]).flatten(1)
        return normed
