"""A moving average of the weights, which is evaluated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hierarch.train.sharding import parted


class Average:
    """The average of a network's weights. Of its buffers there is none: they stay as they are."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.values = {name: p.detach().clone() for name, p in network.named_parameters()}
        self.count = 0
        """Updates that are done."""

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now; the first time, instead of the average."""
        n = self.count
        kept = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        for name, parameter in self.network.named_parameters():
            self.values[name].lerp_(parameter.detach(), 1 - kept)
        self.count += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this is entered the network has the average for its weights."""
        weights = {name: value.clone() for name, value in self._held().items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(weights)

    def load(self, values: Mapping[str, Tensor], count: int) -> None:
        """Go on from an average of so many updates."""
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(parted(values[name], value))
        self.count = count

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self._held().items():
            value.copy_(values[name])

    def _held(self) -> dict[str, Tensor]:
        """The network's own weights. Asking for its state makes FSDP2 drop gathered copies of them,
        which would otherwise be computed with after the weights have changed."""
        state = self.network.state_dict()
        return {name: state[name] for name in self.values}
