"""The base classes of a spec's parts: mixers, block, norm, activation, stem and downsampling.

A part's spec has the fields, the claim, and a method that builds the module. The claim is the
number of multiply-adds (MACs) for one image by the paper's formula, an exact integer, computed
without torch. fvcore's count on the built module must equal it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hierarch.spec.base import Spec
from hierarch.spec.grid import Sides

if TYPE_CHECKING:
    from torch import nn

    from hierarch.spec.plan import BlockPlan


def linear_params(in_dim: int, out_dim: int, *, bias: bool = True) -> int:
    """Parameters of a linear layer."""
    return in_dim * out_dim + bias * out_dim


def built_params(module: nn.Module) -> int:
    """Parameters of a module that was built, for a part without a formula of its own."""
    return sum(parameter.numel() for parameter in module.parameters())


KINDS = (
    *("mixer", "channel_mixer", "block", "norm", "activation", "position"),
    *("stem", "downsample"),
)


class Part(Spec):
    """A part, which `type` names in YAML.

    >>> from hierarch import load
    >>> load("swin_tiny").plan()[0].mixers[1].to_data()
    {'type': 'window_attention', 'head_dim': 32, 'shift_size': 3}
    """

    kind: ClassVar[str]
    formula: ClassVar[str] = ""
    """The claim in the paper's symbols, for display."""
    paper: ClassVar[str] = ""
    """The source: authors, year, arXiv id, equation."""

    one_of: ClassVar[frozenset[str]] = frozenset()
    """Fields of which exactly one has to be given."""

    type: str
    """Name of the part."""

    @property
    def axes(self) -> int | None:
        """Axes of the grids that the part works on: 2 for those of images; None for any number."""
        return None

    @classmethod
    def defaults(cls, dims: Sequence[int]) -> dict[str, Any]:
        """A value for one of `one_of` that fits these widths; `swap` uses it if none is given."""
        return {}

    def to_data(self) -> Any:
        data = super().to_data()
        return {"type": self.type, **data} if data else self.type


class MixerSpec(Part):
    """A token mixer: (B, H, W, C) to the same shape, for any H and W.

    It only mixes tokens: norm, residual, drop path, layer scale and MLP belong to the block. To add
    one, subclass this with fields, `macs` and `build`, and decorate the class with `@register`.

    >>> from hierarch import load
    >>> mixer = load("swin_tiny").plan()[0].mixers[0]
    >>> mixer.macs(dim=96, grid=(56, 56)), mixer.params(dim=96), mixer.tile()
    (145108992, 37755, (7, 7))
    """

    kind: ClassVar[str] = "mixer"
    needs_grid: ClassVar[bool] = True
    """False if it treats tokens as a set, in any order, or can be told the grid. Only then can
    there be tokens outside of the grid, such as a class token."""
    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    """Names of the module's parameters that an optimizer should not decay."""

    @property
    def takes_grid(self) -> bool:
        """Whether its module is told the grid (h, w) as a second argument, where there are tokens
        outside of it: its map is then one row of P + h*w tokens, (B, 1, P + h*w, C)."""
        return False

    def check(self, *, dim: int) -> None:
        """Raise `ValueError` if the mixer does not support this width."""

    @abstractmethod
    def macs(self, *, dim: int, grid: Sides) -> int:
        """The claim: MACs for one image of `grid` tokens, padding included.

        It has to be a closed formula: the verdict on linearity evaluates it for grids of up to 2^60
        tokens a side.
        """

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        """The part of `macs` that is spent on padding."""
        return 0

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the mixer's own, its module is built and
        counted, which takes thousands of times as long."""
        return built_params(self.build(dim))

    def tile(self) -> Sides:
        """(height, width): a grid whose sides are multiples of these is not padded."""
        return (1, 1)

    @property
    def axes(self) -> int | None:
        return len(self.tile()) if self.needs_grid else None

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """The module."""


class ChannelMixerSpec(Part):
    """A channel mixer, the second half of a block: (B, H, W, C) to the same shape.

    What all of them have is said by the block: `block.dim` and `block.hidden_dim`, the widths,
    `block.mlp_bias`, `block.activation` and `block.drop_rate`. To add one, subclass this with
    `macs`, `build` and fields of its own, and decorate the class with `@register`.

    >>> from hierarch import load
    >>> block = load("swin_tiny").plan()[0].blocks[0]
    >>> block.channel_mixer.macs(block, grid=(56, 56))
    231211008
    """

    kind: ClassVar[str] = "channel_mixer"
    needs_grid: ClassVar[bool] = True
    """False if it works on each token alone; see `MixerSpec`."""
    norms: ClassVar[int] = 1
    """Norms that a block has for it."""

    @property
    def axes(self) -> int | None:
        return 2 if self.needs_grid else None

    @abstractmethod
    def macs(self, block: BlockPlan, *, grid: Sides) -> int:
        """The claim: MACs for one image of `grid` tokens."""

    def params(self, block: BlockPlan) -> int:
        """The claim: parameters. Without a formula of the channel mixer's own, its module is built
        and counted."""
        built = self.build(block)
        return built_params(built) if built else 0

    @abstractmethod
    def build(self, block: BlockPlan) -> nn.Module | None:
        """The module, or None for no second half. If it works on each token alone, (..., C) to the
        same shape, decorate its class with `@hierarch.nn.layers.per_token`: blocks may then be run
        window by window."""


class BlockSpec(Part):
    """A block of mixer, channel mixer and norms: (B, H, W, C) to the same shape.

    Its module has to name them `mixer`, `mlp`, and `norm`, or `norm1` and `norm2`, and position
    embeddings `position1` and `position2`, since the count assigns costs to parts by these names.

    >>> from hierarch import load
    >>> block = load("swin_tiny").plan()[0].blocks[0]
    >>> module = block.spec.build(block, drop_path=0.1)
    >>> {'mixer', 'mlp', 'norm1', 'norm2'} <= dict(module.named_children()).keys()
    True
    """

    kind: ClassVar[str] = "block"
    norms: ClassVar[int]
    """Number of norms in a block, without those that it has for its channel mixer."""

    def norm_count(self, block: BlockPlan) -> int:
        """The number of a block's norms, without those inside of its mixers."""
        return self.norms + block.channel_mixer.norms

    @property
    def needs_grid(self) -> bool:
        """Whether a part of its own, such as a position embedding, needs the grid; see
        `MixerSpec`."""
        return False

    def check(self, *, dim: int) -> None:
        """Raise `ValueError` if the block does not support this width."""

    def positions(self, block: BlockPlan) -> dict[str, PositionSpec]:
        """The position embeddings inside of a block, by their names in its module."""
        return {}

    def params(self, block: BlockPlan) -> int:
        """The claim: parameters of a block without its mixer. Without a formula of the block's
        own, its module is built and counted."""
        built = self.build(block, drop_path=0)
        return built_params(built) - block.mixer.params(dim=block.dim)

    @abstractmethod
    def build(self, block: BlockPlan, *, drop_path: float) -> nn.Module:
        """The module."""


class ActivationSpec(Part):
    """An element-wise function, (...) to the same shape; free by fvcore's convention.

    >>> from hierarch import load
    >>> load("swin_tiny").plan()[0].blocks[0].activation.build()
    GELU(approximate='none')
    """

    kind: ClassVar[str] = "activation"
    formula: ClassVar[str] = "0: element-wise, which is free by fvcore's convention"

    def params(self) -> int:
        """The claim: parameters. Without a number of the activation's own, its module is built
        and counted."""
        return built_params(self.build())

    @abstractmethod
    def build(self) -> nn.Module:
        """The module."""


class NormSpec(Part):
    """A normalization: (B, H, W, C) to the same shape.

    >>> from hierarch import load
    >>> load("swin_tiny").plan()[0].blocks[0].norm.macs(dim=96, grid=(56, 56))
    1505280
    """

    kind: ClassVar[str] = "norm"
    per_token: ClassVar[bool] = False
    """Whether each token is normalized by itself, independently of the others."""

    @property
    def axes(self) -> int | None:
        return None if self.per_token else 2

    @abstractmethod
    def macs(self, *, dim: int, grid: Sides) -> int:
        """The claim, by fvcore's convention for norms."""

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the norm's own, its module is built and
        counted."""
        return built_params(self.build(dim))

    @abstractmethod
    def build(self, dim: int, *, init: float = 1) -> nn.Module:
        """The module, whose scale per channel starts at `init`."""


class PositionSpec(Part):
    """A position embedding, which tells tokens where they are: (B, H, W, C) to the same shape.

    >>> from hierarch import load
    >>> position = load("vit_tiny_patch16").position_embedding
    >>> position.type, position.macs(dim=192, grid=(14, 14))
    ('absolute', 0)
    """

    kind: ClassVar[str] = "position"
    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    """Names of the module's parameters that an optimizer should not decay."""

    @property
    def axes(self) -> int | None:
        return 2

    def check(self, *, dim: int) -> None:
        """Raise `ValueError` if the position embedding does not support this width."""

    @abstractmethod
    def macs(self, *, dim: int, grid: Sides) -> int:
        """The claim for one image of `grid` tokens."""

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the part's own, its module is built and
        counted."""
        return built_params(self.build(dim))

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """The module."""


class StemSpec(Part):
    """A stem, from an image to tokens: (B, C, H, W) to (B, h, w, dim).

    >>> from hierarch import load
    >>> stem = load("swin_tiny").stem
    >>> stem.stride(), stem.grid((224, 230))
    ((4, 4), (56, 58))
    """

    kind: ClassVar[str] = "stem"

    in_chans: int

    def check(self, *, dim: int) -> None:
        """Raise `ValueError` if the stem does not support this width."""

    @property
    def axes(self) -> int | None:
        return len(self.stride())

    @abstractmethod
    def stride(self) -> Sides:
        """Pixels per token."""

    @abstractmethod
    def grid(self, size: Sides) -> Sides:
        """The grid of tokens of an image of `size` pixels."""

    @abstractmethod
    def macs(self, *, dim: int, size: Sides) -> int:
        """The claim for one image of `size` pixels."""

    @abstractmethod
    def padding_macs(self, *, dim: int, size: Sides) -> int:
        """The part of `macs` that is spent on padding."""

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the stem's own, its module is built and
        counted."""
        return built_params(self.build(dim))

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """The module."""


class DownsampleSpec(Part):
    """A downsampling, at the start of a stage: (B, H, W, in_dim) to (B, h, w, dim).

    >>> from hierarch import load
    >>> merging = load("swin_tiny").plan()[1].downsample
    >>> merging.stride(), merging.macs(in_dim=96, dim=192, grid=(56, 56))
    ((2, 2), 59308032)
    """

    kind: ClassVar[str] = "downsample"

    @property
    def axes(self) -> int | None:
        return len(self.stride())

    @abstractmethod
    def stride(self) -> Sides:
        """Input tokens per output token, along each axis."""

    @abstractmethod
    def grid(self, grid: Sides) -> Sides:
        """The output grid of an input grid."""

    @abstractmethod
    def macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        """The claim; `grid` is the input grid."""

    @abstractmethod
    def padding_macs(self, *, in_dim: int, dim: int, grid: Sides) -> int:
        """The part of `macs` that is spent on padding."""

    def params(self, *, in_dim: int, dim: int) -> int:
        """The claim: parameters. Without a formula of the downsampling's own, its module is built
        and counted."""
        return built_params(self.build(in_dim, dim))

    @abstractmethod
    def build(self, in_dim: int, dim: int) -> nn.Module:
        """The module."""
