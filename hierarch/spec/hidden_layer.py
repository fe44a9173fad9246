"""The claim of channel mixers that widen a token, and narrow it again."""

from __future__ import annotations

from hierarch.spec.grid import Sides, tokens
from hierarch.spec.parts import ChannelMixerSpec, linear_params
from hierarch.spec.plan import BlockPlan


class HiddenLayerSpec(ChannelMixerSpec):
    """A channel mixer of two linear layers, C -> D -> C, and an activation.

    >>> from hierarch import load
    >>> isinstance(load("swin_tiny").plan()[0].blocks[0].channel_mixer, HiddenLayerSpec)
    True
    """

    def macs(self, block: BlockPlan, *, grid: Sides) -> int:
        # N·C·D + N·D·C
        return 2 * tokens(grid) * block.dim * block.hidden_dim

    def params(self, block: BlockPlan) -> int:
        widen = linear_params(block.dim, block.hidden_dim, bias=block.mlp_bias)
        narrow = linear_params(block.hidden_dim, block.dim, bias=block.mlp_bias)
        return widen + block.activation.params() + narrow
