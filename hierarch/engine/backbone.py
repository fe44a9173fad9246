"""The network, with the engine's controls."""

from __future__ import annotations

from typing import Self

from hierarch.engine.packing import pack, unpack
from hierarch.engine.streaming import TileSize, set_tile_size
from hierarch.nn import backbone


class Backbone(backbone.Backbone):
    __doc__ = backbone.Backbone.__doc__

    def set_tile_size(self, tokens: TileSize) -> None:
        """How many tokens inference on a CPU takes through a block together, where the block's
        mixer works in windows: "auto", the default, for 735 KiB of them; None for all at once.

        Raises `ValueError` for a number below 1. The output does not depend on it.
        """
        set_tile_size(self, tokens)

    def pack_weights(self) -> Self:
        """Keep the weights of linear layers in oneDNN's own order, and in no other, which makes
        inference on a CPU faster; and return the network.

        They are no parameters then, so that nothing trains them, but are in a state dict as before.
        Layers with a hook are left as they are. Raises `ValueError` where oneDNN does not multiply
        a weight: on a GPU, or in other types than float32 and bfloat16.
        """
        pack(self)
        return self

    def unpack_weights(self) -> Self:
        """Undo `pack_weights`, and return the network: weights are parameters again."""
        unpack(self)
        return self
