"""What a network's stages and blocks are made of, with all defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass

from hierarch.spec.parts import (
    ActivationSpec,
    BlockSpec,
    ChannelMixerSpec,
    DownsampleSpec,
    MixerSpec,
    NormSpec,
    PositionSpec,
)


@dataclass(frozen=True)
class BlockPlan:
    """A block with all defaults filled in, as it is built and counted.

    >>> from hierarch import load
    >>> block = load("swin_tiny").plan()[0].blocks[1]
    >>> block.dim, block.mixer.shift_size, block.norm.type
    (96, 3, 'layer_norm')
    """

    dim: int
    spec: BlockSpec
    """How mixers and norms are connected."""
    mixer: MixerSpec
    channel_mixer: ChannelMixerSpec
    hidden_dim: int
    mlp_bias: bool
    activation: ActivationSpec
    norm: NormSpec
    drop_rate: float
    layer_scale: float | None

    @property
    def norms(self) -> int:
        """The number of its norms, without those inside of its mixers."""
        return self.spec.norm_count(self)

    @property
    def positions(self) -> dict[str, PositionSpec]:
        """The position embeddings inside of it, by their names in its module."""
        return self.spec.positions(self)


@dataclass(frozen=True)
class StagePlan:
    """A stage with all defaults filled in, as it is built and counted.

    >>> from hierarch import load
    >>> stage = load("swin_tiny").plan()[2]
    >>> stage.dim, [mixer.shift_size for mixer in stage.mixers]
    (384, [0, 3, 0, 3, 0, 3])
    """

    index: int
    in_dim: int
    dim: int
    depth: int
    downsample: DownsampleSpec | None
    position: PositionSpec | None
    position_after: int
    """How many blocks `position` comes after."""
    cycle: tuple[BlockPlan, ...]
    """Block i is entry i % len."""
    drop_paths: tuple[float, ...]
    """One per block."""
    output_norm: NormSpec | None
    """None unless the network returns the stage's map."""

    @property
    def blocks(self) -> tuple[BlockPlan, ...]:
        """One per block."""
        return tuple(self.cycle[i % len(self.cycle)] for i in range(self.depth))

    @property
    def mixers(self) -> tuple[MixerSpec, ...]:
        """One per block."""
        return tuple(block.mixer for block in self.blocks)

    @property
    def norm(self) -> NormSpec:
        """The norm of its map, where that is an output or is classified: its first block's."""
        return self.cycle[0].norm

    def counts(self) -> list[tuple[BlockPlan, int]]:
        """Each entry of the cycle, and how many blocks it is.

        >>> from hierarch import load
        >>> [count for _, count in load("swin_tiny").plan()[2].counts()]
        [3, 3]
        """
        period = len(self.cycle)
        return [
            (block, len(range(i, self.depth, period)))
            for i, block in enumerate(self.cycle[: self.depth])
        ]
