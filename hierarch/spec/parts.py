"""The base classes of a spec's parts: mixer, block, norm, activation, stem and downsampling.

A part's spec has the fields, the claim, and a method that builds the module. The claim is the
number of multiply-adds (MACs) for one image by the paper's formula, an exact integer, computed
without torch. fvcore's count on the built module must equal it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hierarch.spec.base import Spec
from hierarch.spec.grid import Pair

if TYPE_CHECKING:
    from torch import nn

    from hierarch.spec.backbone import StagePlan


def linear_params(in_dim: int, out_dim: int, *, bias: bool = True) -> int:
    """Parameters of a linear layer."""
    return in_dim * out_dim + bias * out_dim


def built_params(module: nn.Module) -> int:
    """Parameters of a module that was built, for a part without a formula of its own."""
    return sum(parameter.numel() for parameter in module.parameters())


KINDS = ("mixer", "block", "norm", "activation", "stem", "downsample")


class Part(Spec):
    """A part, which `type` names in YAML."""

    kind: ClassVar[str]
    formula: ClassVar[str] = ""
    """The claim in the paper's symbols, for display."""
    paper: ClassVar[str] = ""
    """The source: authors, year, arXiv id, equation."""

    type: str
    """Name of the part."""

    def to_data(self) -> Any:
        data = super().to_data()
        return {"type": self.type, **data} if data else self.type


class MixerSpec(Part):
    """A token mixer: (B, H, W, C) to the same shape, for any H and W.

    It only mixes tokens: norm, residual, drop path, layer scale and MLP belong to the block. To add
    one, subclass this with fields, `macs` and `build`, and decorate the class with `@register`.
    """

    kind: ClassVar[str] = "mixer"
    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    """Names of the module's parameters that an optimizer should not decay."""
    one_of: ClassVar[frozenset[str]] = frozenset()
    """Fields of which exactly one has to be given."""

    def check(self, *, dim: int) -> None:
        """Raise `ValueError` if the mixer does not support this width."""

    @abstractmethod
    def macs(self, *, dim: int, grid: Pair) -> int:
        """The claim: MACs for one image of `grid` tokens, padding included.

        It has to be a closed formula: the verdict on linearity evaluates it for grids of up to 2^60
        tokens a side.
        """

    def padding_macs(self, *, dim: int, grid: Pair) -> int:
        """The part of `macs` that is spent on padding."""
        return 0

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the mixer's own, its module is built and
        counted, which takes thousands of times as long."""
        return built_params(self.build(dim))

    def tile(self) -> Pair:
        """(height, width): a grid whose sides are multiples of these is not padded."""
        return (1, 1)

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """The module."""

    @classmethod
    def defaults(cls, dims: Sequence[int]) -> dict[str, Any]:
        """A value for one of `one_of` that fits these widths; `swap` uses it if none is given."""
        return {}


class BlockSpec(Part):
    """A block of mixer, MLP and norms: (B, H, W, C) to the same shape.

    Its module has to name them `mixer`, `mlp`, and `norm`, or `norm1` and `norm2`, since the count
    assigns costs to parts by these names.
    """

    kind: ClassVar[str] = "block"
    norms: ClassVar[int]
    """Number of norms in a block."""

    def params(self, stage: StagePlan, mixer: MixerSpec) -> int:
        """The claim: parameters of a block without its mixer. Without a formula of the block's
        own, its module is built and counted."""
        built = self.build(stage, mixer, drop_path=0)
        return built_params(built) - mixer.params(dim=stage.dim)

    @abstractmethod
    def build(self, stage: StagePlan, mixer: MixerSpec, *, drop_path: float) -> nn.Module:
        """The module."""


class ActivationSpec(Part):
    """An element-wise function, (...) to the same shape; free by fvcore's convention."""

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
    """A normalization: (B, H, W, C) to the same shape."""

    kind: ClassVar[str] = "norm"
    per_token: ClassVar[bool] = False
    """Whether each token is normalized by itself, independently of the others."""

    @abstractmethod
    def macs(self, *, dim: int, grid: Pair) -> int:
        """The claim, by fvcore's convention for norms."""

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the norm's own, its module is built and
        counted."""
        return built_params(self.build(dim))

    @abstractmethod
    def build(self, dim: int, *, init: float = 1) -> nn.Module:
        """The module, whose scale per channel starts at `init`."""


class StemSpec(Part):
    """A stem, from an image to tokens: (B, C, H, W) to (B, h, w, dim)."""

    kind: ClassVar[str] = "stem"

    in_chans: int

    @abstractmethod
    def stride(self) -> Pair:
        """Pixels per token."""

    @abstractmethod
    def grid(self, size: Pair) -> Pair:
        """The grid of tokens of an image of `size` pixels."""

    @abstractmethod
    def macs(self, *, dim: int, size: Pair) -> int:
        """The claim for one image of `size` pixels."""

    @abstractmethod
    def padding_macs(self, *, dim: int, size: Pair) -> int:
        """The part of `macs` that is spent on padding."""

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the stem's own, its module is built and
        counted."""
        return built_params(self.build(dim))

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """The module."""


class DownsampleSpec(Part):
    """A downsampling, at the start of a stage: (B, H, W, in_dim) to (B, h, w, dim)."""

    kind: ClassVar[str] = "downsample"

    @abstractmethod
    def stride(self) -> Pair:
        """Input tokens per output token, along each axis."""

    @abstractmethod
    def grid(self, grid: Pair) -> Pair:
        """The output grid of an input grid."""

    @abstractmethod
    def macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        """The claim; `grid` is the input grid."""

    @abstractmethod
    def padding_macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        """The part of `macs` that is spent on padding."""

    def params(self, *, in_dim: int, dim: int) -> int:
        """The claim: parameters. Without a formula of the downsampling's own, its module is built
        and counted."""
        return built_params(self.build(in_dim, dim))

    @abstractmethod
    def build(self, in_dim: int, dim: int) -> nn.Module:
        """The module."""
