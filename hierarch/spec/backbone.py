"""The spec of a backbone, as written in YAML, and its plan, with all defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Strict, model_validator

from hierarch.spec.base import Depth, Dim, Flag, Name, Rate, Ratio, Side, Spec, fault
from hierarch.spec.grid import Pair, pair, tokens
from hierarch.spec.head import Activation, HeadSpec, Norm
from hierarch.spec.parts import (
    ActivationSpec,
    BlockSpec,
    DownsampleSpec,
    MixerSpec,
    NormSpec,
    StemSpec,
    linear_params,
)
from hierarch.spec.registry import PartOf, default

Block = Annotated[BlockSpec, PartOf("block")]
Downsample = Annotated[DownsampleSpec, PartOf("downsample")]
Stem = Annotated[StemSpec, PartOf("stem")]


MAX_BLOCKS = 1024
"""The most blocks of a whole network."""


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
    """One stage: blocks of one width on one grid. Fields that are left out are the top level's."""

    dim: Dim
    """Channels."""
    depth: Depth
    """Blocks."""
    mixer: Mixers | None = None
    """The stage's own mixers, cycled over its blocks."""
    downsample: Downsample | None = None
    """The downsampling at the start of the stage. The first stage has none unless given here."""
    block: Block | None = None
    """The block: how mixer, MLP and norms are connected."""
    mlp_ratio: Ratio | None = None
    """Width of the MLP's hidden layer, as a multiple of dim."""
    mlp_bias: Flag | None = None
    """A bias in both linear layers of the MLP."""
    activation: Activation | None = None
    """The MLP's activation."""
    norm: Norm | None = None
    """The norm before the mixer and before the MLP, and of the stage's output."""
    drop_rate: Rate | None = None
    """Dropout after the mixer and in the MLP."""
    layer_scale: Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """Initial value of a learned factor per channel on both residual branches."""


class AbsolutePositionSpec(Spec):
    """A learned vector per position of a grid, added after the stem."""

    type: Literal["absolute"]
    """A learned vector per position."""
    grid: Annotated[int | Pair, Side(1, 1024)]
    """Tokens along a side of the grid that it is learned on, or [height, width]; for any other
    grid it is resized (bicubic)."""

    def macs(self, *, dim: int, grid: Pair) -> int:
        # bicubic: 16 per resized element; nothing on its own grid
        return 0 if grid == pair(self.grid) else 16 * tokens(grid) * dim

    def params(self, *, dim: int) -> int:
        return tokens(pair(self.grid)) * dim


def _none_is_null(value: Any) -> Any:
    return None if isinstance(value, str) and value == "none" else value


Position = Annotated[
    AbsolutePositionSpec | None,
    BeforeValidator(
        _none_is_null, json_schema_input_type=AbsolutePositionSpec | Literal["none"] | None
    ),
]


@dataclass(frozen=True)
class StagePlan:
    """A stage with all defaults filled in, as it is built and counted."""

    index: int
    in_dim: int
    dim: int
    downsample: DownsampleSpec | None
    mixers: tuple[MixerSpec, ...]
    """One per block."""
    drop_paths: tuple[float, ...]
    """One per block."""
    block: BlockSpec
    hidden_dim: int
    mlp_bias: bool
    activation: ActivationSpec
    norm: NormSpec
    drop_rate: float
    layer_scale: float | None
    output_norm: NormSpec | None
    """None unless the network returns the stage's map."""

    @property
    def depth(self) -> int:
        return len(self.mixers)

    @property
    def mlp_params(self) -> int:
        """Parameters of a block's MLP, C -> D -> C, and of its activation."""
        widen = linear_params(self.dim, self.hidden_dim, bias=self.mlp_bias)
        narrow = linear_params(self.hidden_dim, self.dim, bias=self.mlp_bias)
        return widen + self.activation.params() + narrow


class BackboneSpec(Spec):
    """A hierarchical vision backbone: a stem, stages that start with a downsampling, a head."""

    name: Name = "backbone"
    """The network's name in reports."""
    input_size: Annotated[int | Pair, Side(1, 65_536)] = 224
    """Nominal image size in pixels, or [height, width]: the default of reports. Modules accept
    any size."""
    stem: Stem = default("stem", "patch_embed")
    """From the image to tokens."""
    mixer: Mixers | None = None
    """Token mixers, cycled over the blocks of every stage: block i takes entry i % len."""
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=16)]
    """The stages, from the finest grid to the coarsest."""
    downsample: Downsample = default("downsample", "patch_merging")
    """The downsampling at the start of every stage but the first."""
    block: Block = default("block", "pre_norm")
    """The block: how mixer, MLP and norms are connected."""
    mlp_ratio: Ratio = 4
    """Width of the MLP's hidden layer, as a multiple of dim."""
    mlp_bias: Flag = True
    """A bias in both linear layers of the MLP."""
    activation: Activation = default("activation", "gelu")
    """The MLP's activation."""
    norm: Norm = default("norm", "layer_norm")
    """The norm before every mixer and every MLP, before the head, and after each output."""
    drop_rate: Rate = 0.0
    """Dropout after the stem, after every mixer and in every MLP."""
    drop_path_rate: Rate = 0.0
    """Probability that the last block's residual branches are dropped for an image in training; it
    rises linearly from 0 at the first block, over the whole network (stochastic depth)."""
    layer_scale: Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """Initial value of a learned factor per channel on both residual branches; null for none."""
    position_embedding: Position = None
    """none, or a learned vector per position: {type: absolute, grid: [56, 56]}."""
    out_indices: tuple[Annotated[int, Strict()], ...] | None = None
    """The stages, from 0, whose feature maps a network without a head returns; all by default.
    Stages after the last of them are not built."""
    output_norm: Flag = True
    """A separate norm on each of these maps, as in mmdetection; false for none, as in timm."""
    head: HeadSpec | None = None
    """The classifier; leave it out for a feature extractor."""

    @model_validator(mode="after")
    def _is_a_network(self) -> Self:
        faults = [*self._stage_faults(), *self._output_faults(), *self._head_faults()]
        blocks = sum(stage.depth for stage in self.stages)
        if blocks > MAX_BLOCKS:
            message = f"have {blocks} blocks together; at most {MAX_BLOCKS}"
            faults.append((("stages",), message, ...))
        if faults:
            raise fault("BackboneSpec", *faults)
        return self

    def _stage_faults(self) -> list[tuple[tuple[str | int, ...], str, object]]:
        faults: list[tuple[tuple[str | int, ...], str, object]] = []
        for index, stage in enumerate(self.stages):
            here = ("stages", index)
            mixers = stage.mixer or self.mixer
            if mixers is None:
                message = "has no mixer; give it one, or give one to all stages at the top"
                faults.append((here, message, ...))
            for mixer in dict.fromkeys(mixers or ()):
                try:
                    mixer.check(dim=stage.dim)
                except ValueError as error:
                    faults.append(((*here, "dim"), f"{error} ({mixer.type})", ...))
            ratio = stage.mlp_ratio or self.mlp_ratio
            if int(stage.dim * ratio) < 1:
                message = f"leaves an MLP of no width at dim={stage.dim}"
                faults.append(((*here, "mlp_ratio"), message, ratio))
        return faults

    def _head_faults(self) -> list[tuple[tuple[str | int, ...], str, object]]:
        ratio, dim = self.head and self.head.hidden_ratio, self.stages[-1].dim
        if ratio and int(dim * ratio) < 1:
            message = f"leaves a hidden layer of no width at dim={dim}"
            return [(("head", "hidden_ratio"), message, ratio)]
        return []

    def _output_faults(self) -> list[tuple[tuple[str | int, ...], str, object]]:
        indices, last = self.out_indices, len(self.stages) - 1
        if indices is None:
            return []
        here = ("out_indices",)
        if self.head is not None:
            message = "is for a network without a head; leave out one of the two (head: null)"
            return [(here, message, ...)]
        if not indices or list(indices) != sorted(set(indices) & set(range(last + 1))):
            return [(here, f"should be rising numbers of stages from 0 to {last}", list(indices))]
        return []

    @property
    def outputs(self) -> tuple[int, ...]:
        """The stages whose feature maps the network returns; none if it has a head."""
        if self.head is not None:
            return ()
        return tuple(range(len(self.stages))) if self.out_indices is None else self.out_indices

    def strides(self) -> tuple[Pair, ...]:
        """Pixels per token of each stage's map, (height, width)."""
        h, w = self.stem.stride()
        strides: list[Pair] = []
        for stage in self.plan():
            down = stage.downsample.stride() if stage.downsample else (1, 1)
            h, w = h * down[0], w * down[1]
            strides.append((h, w))
        return tuple(strides)

    def plan(self) -> tuple[StagePlan, ...]:
        """The stages with all defaults filled in, up to the last one that is used."""
        used = 1 + (max(self.outputs) if self.outputs else len(self.stages) - 1)
        last = max(1, sum(stage.depth for stage in self.stages) - 1)
        plans: list[StagePlan] = []
        block, in_dim = 0, self.stages[0].dim
        for index, stage in enumerate(self.stages):
            cycle = stage.mixer or self.mixer or ()
            norm = stage.norm or self.norm
            blocks = range(block, block + stage.depth)
            plans.append(
                StagePlan(
                    index=index,
                    in_dim=in_dim,
                    dim=stage.dim,
                    downsample=stage.downsample or (self.downsample if index else None),
                    mixers=tuple(cycle[i % len(cycle)] for i in range(stage.depth)),
                    drop_paths=tuple(self.drop_path_rate * i / last for i in blocks),
                    block=stage.block or self.block,
                    hidden_dim=int(stage.dim * (stage.mlp_ratio or self.mlp_ratio)),
                    mlp_bias=self.mlp_bias if stage.mlp_bias is None else stage.mlp_bias,
                    activation=stage.activation or self.activation,
                    norm=norm,
                    drop_rate=self.drop_rate if stage.drop_rate is None else stage.drop_rate,
                    layer_scale=stage.layer_scale or self.layer_scale,
                    output_norm=norm if self.output_norm and index in self.outputs else None,
                )
            )
            block, in_dim = block + stage.depth, stage.dim
        return tuple(plans[:used])
