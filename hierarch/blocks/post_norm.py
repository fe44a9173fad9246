"""The block of Swin V2: each branch ends in a norm."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from hierarch.blocks.pre_norm import PreNorm
from hierarch.nn import functional
from hierarch.spec.parts import BlockSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class PostNormSpec(BlockSpec):
    """x + norm(mixer(x)), then x + norm(channel_mixer(x)): residual post-norm."""

    formula: ClassVar[str] = "two norms, and those of its mixers"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2111.09883, section 3.2"
    norms: ClassVar[int] = 1

    type: Literal["post_norm"] = "post_norm"
    """A norm after each mixer, Swin V2's."""

    def params(self, block: BlockPlan) -> int:
        # of each branch, a norm and a factor per channel
        branch = block.norm.params(dim=block.dim) + (block.layer_scale is not None) * block.dim
        return block.norms * branch + block.channel_mixer.params(block)

    def build(self, block: BlockPlan, *, drop_path: float) -> nn.Module:
        return PostNorm(block, drop_path=drop_path)


class PostNorm(PreNorm):
    """(B, H, W, C) -> (B, H, W, C). The scales of its norms start at 0, as published, so that the
    block starts as the identity."""

    def __init__(self, block: BlockPlan, *, drop_path: float) -> None:
        super().__init__(block, drop_path=drop_path, norm_init=0)

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        mixed = self.layer_scale1(self.norm1(self.drop(mixed)))
        x = x + self.drop_path1(mixed)
        if self.mlp is None:
            return x
        widened = self.layer_scale2(self.norm2(functional.mlp(self.mlp, x)))
        return cast(Tensor, x + self.drop_path2(widened))
