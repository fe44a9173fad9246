"""The base class of layers that make one row of tokens of a few input rows."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn


class ByRows(nn.Module):
    """(B, H, W, C) -> (B, ceil(H / P), w, D), such as patch embedding and patch merging."""

    rows: int
    """P: input rows per output row. They depend on no other row, if the norm inside works token by
    token."""

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / P), w, D)."""
