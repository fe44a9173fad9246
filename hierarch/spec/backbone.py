"""The spec of a backbone, as written in YAML, and its plan, with all defaults filled in."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Strict, model_validator

from hierarch.spec.base import MAX_DEPTH, Depth, Dim, Flag, Name, Rate, Ratio, Side, Spec, fault
from hierarch.spec.checks import found
from hierarch.spec.extra_tokens import ExtraTokensSpec
from hierarch.spec.grid import AXES, Sides, per_axis, times
from hierarch.spec.head import Activation, HeadSpec
from hierarch.spec.parts import (
    BlockSpec,
    ChannelMixerSpec,
    DownsampleSpec,
    MixerSpec,
    NormSpec,
    PositionSpec,
    StemSpec,
)
from hierarch.spec.plan import BlockPlan, StagePlan
from hierarch.spec.registry import CycleOf, PartOf, default, entries

Blocks = Annotated[BlockSpec | tuple[BlockSpec, ...], CycleOf("block")]
ChannelMixers = Annotated[ChannelMixerSpec | tuple[ChannelMixerSpec, ...], CycleOf("channel_mixer")]
Norms = Annotated[NormSpec | tuple[NormSpec, ...], CycleOf("norm")]
Downsample = Annotated[DownsampleSpec, PartOf("downsample")]
Stem = Annotated[StemSpec, PartOf("stem")]
_Position = Annotated[PositionSpec, PartOf("position")]


def _none_is_null(value: Any) -> Any:
    return None if isinstance(value, str) and value == "none" else value


Position = Annotated[
    _Position | None,
    BeforeValidator(_none_is_null, json_schema_input_type=_Position | Literal["none"] | None),
]
"""A position embedding; "none" is null."""


def _one_is_a_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Mixer = Annotated[MixerSpec, PartOf("mixer")]
Mixers = Annotated[
    tuple[Mixer, ...],
    Field(min_length=1, max_length=64),
    BeforeValidator(
        _one_is_a_list,
        json_schema_input_type=Mixer | Annotated[tuple[Mixer, ...], Field(min_length=1)],
    ),
]
"""Token mixers, cycled: block i of a stage takes entry i % len. A mapping is a list of one."""


class StageSpec(Spec):
    """One stage: blocks of one width on one grid. Fields that are left out are the top level's.

    >>> from hierarch import load
    >>> spec = load({"mixer": "pooling", "stages": [{"dim": 64, "depth": 2, "mlp_ratio": 3}]})
    >>> spec.stages[0].mlp_ratio
    3.0
    """

    dim: Dim
    """Channels."""
    depth: Depth
    """Blocks; 0 for a stage that is only its downsampling."""
    mixer: Mixers | None = None
    """The stage's own mixers, cycled over its blocks."""
    downsample: Downsample | None = None
    """The downsampling at the start of the stage. The first stage has none unless given here."""
    position: _Position | None = None
    """The stage's own position embedding, added to its map."""
    position_after: Annotated[int, Strict(), Field(ge=0, le=256)] | None = None
    """How many blocks the stage's position embedding comes after."""
    block: Blocks | None = None
    """The block: how mixers and norms are connected; or a list, cycled over the stage's blocks."""
    channel_mixer: ChannelMixers | None = None
    """The second half of each block; or a list, cycled over the stage's blocks."""
    mlp_ratio: Ratio | None = None
    """Width of the channel mixer's hidden layer, as a multiple of dim."""
    mlp_bias: Flag | None = None
    """A bias in every layer of the channel mixer."""
    activation: Activation | None = None
    """The channel mixer's activation."""
    norm: Norms | None = None
    """The norm before the mixer and before the channel mixer, and of the stage's output; or a list,
    cycled over the stage's blocks, whose first one is the output's."""
    drop_rate: Rate | None = None
    """Dropout after the mixer and in the channel mixer."""
    layer_scale: Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """Initial value of a learned factor per channel on both residual branches."""


class BackboneSpec(Spec):
    """A hierarchical vision backbone: a stem, stages that start with a downsampling, a head.

    >>> from hierarch import load
    >>> spec = load("swin_tiny")
    >>> spec.strides()
    ((4, 4), (8, 8), (16, 16), (32, 32))
    >>> [(stage.dim, stage.depth) for stage in spec.plan()]
    [(96, 2), (192, 2), (384, 6), (768, 2)]
    """

    name: Name = "backbone"
    """The network's name in reports."""
    input_size: Annotated[int | Sides, Side(1, 65_536, axes=AXES)] = 224
    """Nominal image size in pixels, or [height, width]: the default of reports. Modules accept
    any size. A video or a volume has three sides, [frames, height, width], and a signal one,
    [length]: the parts then have a number for each of these axes."""
    stem: Stem = default("stem", "patch_embed")
    """From the image to tokens."""
    stem_dim: Dim | None = None
    """Channels of the stem, where the first stage has a downsampling; null for that stage's dim."""
    mixer: Mixers | None = None
    """Token mixers, cycled over the blocks of every stage: block i takes entry i % len."""
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=16)]
    """The stages, from the finest grid to the coarsest."""
    downsample: Downsample = default("downsample", "patch_merging")
    """The downsampling at the start of every stage but the first."""
    block: Blocks = default("block", "pre_norm")
    """The block: how mixers and norms are connected; or a list, cycled as mixers are."""
    channel_mixer: ChannelMixers = default("channel_mixer", "mlp")
    """The second half of each block, which mixes the channels of a token: an MLP, or another; or a
    list, cycled as mixers are."""
    mlp_ratio: Ratio = 4
    """Width of the channel mixer's hidden layer, as a multiple of dim."""
    mlp_bias: Flag = True
    """A bias in every layer of the channel mixer."""
    activation: Activation = default("activation", "gelu")
    """The channel mixer's activation."""
    norm: Norms = default("norm", "layer_norm")
    """The norm before every mixer and channel mixer, before the head, and after each output; or a
    list, cycled as mixers are, whose first one is the head's and the outputs'."""
    drop_rate: Rate = 0.0
    """Dropout after the stem, after every mixer and in every channel mixer."""
    drop_path_rate: Rate = 0.0
    """Probability that the last block's residual branches are dropped for an image in training; it
    rises linearly from 0 at the first block, over the whole network (stochastic depth)."""
    layer_scale: Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """Initial value of a learned factor per channel on both residual branches; null for none."""
    position_embedding: Position = None
    """Added to the tokens of the stem: none, or a position embedding such as
    {type: absolute, grid: [56, 56]}."""
    position: Position = None
    """Added to the map of every stage, after some of its blocks: none, or a position embedding
    such as conditional."""
    position_after: Annotated[int, Strict(), Field(ge=0, le=256)] = 0
    """How many blocks of a stage its position embedding comes after."""
    extra_tokens: ExtraTokensSpec | None = None
    """Tokens outside of the grid: class, distillation and register tokens. Only for one stage, of
    mixers that need no grid."""
    out_indices: tuple[Annotated[int, Strict()], ...] | None = None
    """The stages, from 0, whose feature maps a network without a head returns; all by default.
    Stages after the last of them are not built."""
    output_norm: Flag = True
    """A separate norm on each of these maps, as in mmdetection; false for none, as in timm."""
    head: HeadSpec | None = None
    """The classifier; leave it out for a feature extractor."""

    @model_validator(mode="after")
    def _is_a_network(self) -> Self:
        faults = list(found(self))
        if faults:
            raise fault("BackboneSpec", *faults)
        return self

    @property
    def size(self) -> Sides:
        """`input_size`, along each axis."""
        return per_axis(self.input_size)

    @property
    def axes(self) -> int:
        """Axes of an image: 2; 3 for videos and volumes, and 1 for signals."""
        return len(self.size)

    @property
    def in_dim(self) -> int:
        """Channels of the tokens that enter the first stage."""
        return self.stem_dim or self.stages[0].dim

    @property
    def classifiers(self) -> int:
        """Classifiers of the head: two where a distillation token is classified as well."""
        distilled = self.extra_tokens is not None and self.extra_tokens.distillation_token
        return 2 if distilled and self.head and self.head.pool == "class_token" else 1

    @property
    def outputs(self) -> tuple[int, ...]:
        """The stages whose feature maps the network returns; none if it has a head."""
        if self.head is not None:
            return ()
        return tuple(range(len(self.stages))) if self.out_indices is None else self.out_indices

    def tokens_of(self, size: Sides) -> Sides:
        """The grid that enters the first stage, for an image of `size` pixels; with tokens outside
        of the grid, the row of all tokens."""
        grid = self.stem.grid(size)
        return self.extra_tokens.row(grid) if self.extra_tokens else grid

    def strides(self) -> tuple[Sides, ...]:
        """Pixels per token of each stage's map, along each axis."""
        stride = self.stem.stride()
        strides: list[Sides] = []
        for stage in self.plan():
            if stage.downsample:
                stride = times(stride, stage.downsample.stride())
            strides.append(stride)
        return tuple(strides)

    def plan(self) -> tuple[StagePlan, ...]:
        """The stages with all defaults filled in, up to the last one that is used."""
        used = 1 + (max(self.outputs) if self.outputs else len(self.stages) - 1)
        last = max(1, sum(stage.depth for stage in self.stages) - 1)
        plans: list[StagePlan] = []
        block, in_dim = 0, self.in_dim
        for index, stage in enumerate(self.stages):
            cycle = self._cycle(stage)
            blocks = range(block, block + stage.depth)
            plans.append(
                StagePlan(
                    index=index,
                    in_dim=in_dim,
                    dim=stage.dim,
                    depth=stage.depth,
                    downsample=stage.downsample or (self.downsample if index else None),
                    position=stage.position or self.position,
                    position_after=(
                        self.position_after
                        if stage.position_after is None
                        else stage.position_after
                    ),
                    cycle=cycle,
                    drop_paths=tuple(self.drop_path_rate * i / last for i in blocks),
                    output_norm=(
                        cycle[0].norm if self.output_norm and index in self.outputs else None
                    ),
                )
            )
            block, in_dim = block + stage.depth, stage.dim
        return tuple(plans[:used])

    def _cycle(self, stage: StageSpec) -> tuple[BlockPlan, ...]:
        """The blocks of a stage up to where they begin again, though it may have fewer."""
        specs = entries(stage.block or self.block)
        mixers = stage.mixer or self.mixer or ()
        channel_mixers = entries(stage.channel_mixer or self.channel_mixer)
        norms = entries(stage.norm or self.norm)
        period = math.lcm(*map(len, (specs, mixers, channel_mixers, norms)))
        return tuple(
            BlockPlan(
                dim=stage.dim,
                spec=specs[i % len(specs)],
                mixer=mixers[i % len(mixers)],
                channel_mixer=channel_mixers[i % len(channel_mixers)],
                hidden_dim=int(stage.dim * (stage.mlp_ratio or self.mlp_ratio)),
                mlp_bias=self.mlp_bias if stage.mlp_bias is None else stage.mlp_bias,
                activation=stage.activation or self.activation,
                norm=norms[i % len(norms)],
                drop_rate=self.drop_rate if stage.drop_rate is None else stage.drop_rate,
                layer_scale=stage.layer_scale or self.layer_scale,
            )
            for i in range(min(period, MAX_DEPTH))
        )
