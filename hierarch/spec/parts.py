"""The contracts of the parts that a spec is made of: mixer, block, norm, stem, and so on.

A part's spec is its data, its claim, and how its module is built. A claim is the number of
multiply-adds (MACs) for one image, worked out from the paper's formula in integers; it knows no
torch. What fvcore counts on the built module must equal it to the unit.
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
    """A registered piece: what `type` names."""

    kind: ClassVar[str]
    formula: ClassVar[str] = ""
    """The claim in the paper's symbols, for people."""
    paper: ClassVar[str] = ""
    """Authors, year, arXiv id, equation."""

    type: str
    """Which part this is."""

    def to_data(self) -> Any:
        data = super().to_data()
        return {"type": self.type, **data} if data else self.type


class MixerSpec(Part):
    """What mixes tokens, and nothing else: (B, H, W, C) to the same shape, for any H and W.

    Norm, residual, drop path, layer scale and MLP are the block's. Subclass it, give it fields,
    a claim and a module, and put `@register` on it.
    """

    kind: ClassVar[str] = "mixer"
    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    """Names of the module's parameters that an optimizer should not decay."""
    one_of: ClassVar[frozenset[str]] = frozenset()
    """Fields of which exactly one is to be given."""

    def check(self, *, dim: int) -> None:
        """Raise `ValueError` if the mixer cannot work at this width."""

    @abstractmethod
    def macs(self, *, dim: int, grid: Pair) -> int:
        """The claim: MACs for one image of `grid` tokens, padding included.

        A closed formula: whether a mixer is linear is decided by asking it for grids of up to
        2^60 tokens a side.
        """

    def padding_macs(self, *, dim: int, grid: Pair) -> int:
        """How many of `macs` are spent on padding."""
        return 0

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the mixer's own, its module is built and
        counted, which takes thousands of times as long."""
        return built_params(self.build(dim))

    def tile(self) -> Pair:
        """The mixer pads no grid whose height and width are multiples of this."""
        return (1, 1)

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """The module."""

    @classmethod
    def defaults(cls, dims: Sequence[int]) -> dict[str, Any]:
        """A value for one of `one_of` that suits these widths; a swap fills it in."""
        return {}


class BlockSpec(Part):
    """How a block joins its mixer, its MLP and its norms: (B, H, W, C) to the same shape.

    Its module calls them `mixer`, `mlp`, and `norm`, or `norm1` and `norm2`: that is how their
    costs are told apart.
    """

    kind: ClassVar[str] = "block"
    norms: ClassVar[int]
    """How many norms of the stage's kind a block has."""

    def params(self, stage: StagePlan, mixer: MixerSpec) -> int:
        """The claim: parameters of a block without its mixer. Without a formula of the block's
        own, its module is built and counted."""
        built = self.build(stage, mixer, drop_path=0)
        return built_params(built) - mixer.params(dim=stage.dim)

    @abstractmethod
    def build(self, stage: StagePlan, mixer: MixerSpec, *, drop_path: float) -> nn.Module:
        """The module."""


class ActivationSpec(Part):
    """A function of each number alone, (...) to the same shape; free by fvcore's convention."""

    kind: ClassVar[str] = "activation"
    formula: ClassVar[str] = "0: what works number by number is not counted"

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
    """Whether each token is normed alone, whatever the others are."""

    @abstractmethod
    def macs(self, *, dim: int, grid: Pair) -> int:
        """The claim, by fvcore's convention for norms."""

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the norm's own, its module is built and
        counted."""
        return built_params(self.build(dim))

    @abstractmethod
    def build(self, dim: int, *, init: float = 1) -> nn.Module:
        """The module. What it multiplies each channel by starts at `init`."""


class StemSpec(Part):
    """What turns an image into the first grid of tokens: (B, C, H, W) to (B, h, w, dim)."""

    kind: ClassVar[str] = "stem"

    in_chans: int

    @abstractmethod
    def stride(self) -> Pair:
        """Pixels per token."""

    @abstractmethod
    def grid(self, size: Pair) -> Pair:
        """Tokens of an image of `size` pixels."""

    @abstractmethod
    def macs(self, *, dim: int, size: Pair) -> int:
        """The claim for one image of `size` pixels."""

    @abstractmethod
    def padding_macs(self, *, dim: int, size: Pair) -> int:
        """How many of `macs` are spent on padding."""

    def params(self, *, dim: int) -> int:
        """The claim: parameters. Without a formula of the stem's own, its module is built and
        counted."""
        return built_params(self.build(dim))

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """The module."""


class DownsampleSpec(Part):
    """What opens a stage: (B, H, W, in_dim) to (B, h, w, dim)."""

    kind: ClassVar[str] = "downsample"

    @abstractmethod
    def stride(self) -> Pair:
        """Tokens in per token out."""

    @abstractmethod
    def grid(self, grid: Pair) -> Pair:
        """Tokens that come out of a grid."""

    @abstractmethod
    def macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        """The claim, for the grid that comes in."""

    @abstractmethod
    def padding_macs(self, *, in_dim: int, dim: int, grid: Pair) -> int:
        """How many of `macs` are spent on padding."""

    def params(self, *, in_dim: int, dim: int) -> int:
        """The claim: parameters. Without a formula of the downsampling's own, its module is built
        and counted."""
        return built_params(self.build(in_dim, dim))

    @abstractmethod
    def build(self, in_dim: int, dim: int) -> nn.Module:
        """The module."""
