"""The block of Swin V2: each branch ends in a norm."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from hierarch.blocks.pre_norm import PreNorm
from hierarch.nn import functional
from hierarch.spec.backbone import StagePlan
from hierarch.spec.parts import BlockSpec, MixerSpec
from hierarch.spec.registry import register


@register
class PostNormSpec(BlockSpec):
    """x + norm(mixer(x)), then x + norm(mlp(x)): residual post-norm."""

    formula: ClassVar[str] = "two norms, the mixer's and the MLP's"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2111.09883, section 3.2"
    norms: ClassVar[int] = 2

    type: Literal["post_norm"] = "post_norm"
    """A norm after the mixer and one after the MLP, Swin V2's."""

    def params(self, stage: StagePlan, mixer: MixerSpec) -> int:
        # two norms, the MLP, and a factor per channel of each branch
        scale = (stage.layer_scale is not None) * stage.dim
        return 2 * (stage.norm.params(dim=stage.dim) + scale) + stage.mlp_params

    def build(self, stage: StagePlan, mixer: MixerSpec, *, drop_path: float) -> nn.Module:
        return PostNorm(stage, mixer, drop_path=drop_path)


class PostNorm(PreNorm):
    """(B, H, W, C) -> (B, H, W, C). The scales of its norms start at 0, as published, so that the
    block starts as the identity."""

    def __init__(self, stage: StagePlan, mixer: MixerSpec, *, drop_path: float) -> None:
        super().__init__(stage, mixer, drop_path=drop_path, norm_init=0)

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        mixed = self.layer_scale1(self.norm1(self.drop(mixed)))
        x = x + self.drop_path1(mixed)
        widened = self.layer_scale2(self.norm2(functional.mlp(self.mlp, x)))
        return cast(Tensor, x + self.drop_path2(widened))
