"""The block of ConvNeXt: one residual branch of mixer, norm and channel mixer."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.layers import DropPath, build_norm, layer_scale
from hierarch.nn.stage import Block
from hierarch.spec.parts import BlockSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class SingleResidualSpec(BlockSpec):
    """x + channel_mixer(norm(mixer(x)))."""

    formula: ClassVar[str] = "one norm, and those of its mixers"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2201.03545, section 2.6"
    norms: ClassVar[int] = 0

    type: Literal["single_residual"] = "single_residual"
    """One residual branch of mixer, norm and channel mixer, ConvNeXt's."""

    def params(self, block: BlockPlan) -> int:
        # the channel mixer and its norm, and a factor per channel of the branch
        norm = block.channel_mixer.norms * block.norm.params(dim=block.dim)
        scale = (block.layer_scale is not None) * block.dim
        return norm + scale + block.channel_mixer.params(block)

    def build(self, block: BlockPlan, *, drop_path: float) -> nn.Module:
        return SingleResidual(block, drop_path=drop_path)


class SingleResidual(Block):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, block: BlockPlan, *, drop_path: float) -> None:
        super().__init__(block)
        self.drop = nn.Dropout(block.drop_rate)
        mlp = block.channel_mixer.build(block)
        self.norm = nn.Identity() if mlp is None else build_norm(block.norm, block.dim)
        self.mlp = mlp
        self.layer_scale = layer_scale(block.dim, block.layer_scale)
        self.drop_path = DropPath(drop_path)

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        branch = self.drop(mixed)
        if self.mlp is not None:
            branch = functional.mlp(self.mlp, branch, self.norm)
        return cast(Tensor, x + self.drop_path(self.layer_scale(branch)))
