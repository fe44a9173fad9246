"""The block of ConvNeXt: one residual branch of mixer, norm and MLP."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.layers import DropPath, Mlp, build_activation, build_norm, layer_scale
from hierarch.nn.stage import Block
from hierarch.spec.backbone import StagePlan
from hierarch.spec.parts import BlockSpec, MixerSpec
from hierarch.spec.registry import register


@register
class SingleResidualSpec(BlockSpec):
    """x + mlp(norm(mixer(x)))."""

    formula: ClassVar[str] = "one norm, the mixer's and the MLP's"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2201.03545, section 2.6"
    norms: ClassVar[int] = 1

    type: Literal["single_residual"] = "single_residual"
    """One residual branch of mixer, norm and MLP, ConvNeXt's."""

    def params(self, stage: StagePlan, mixer: MixerSpec) -> int:
        # a norm, the MLP, and a factor per channel of the branch
        scale = (stage.layer_scale is not None) * stage.dim
        return stage.norm.params(dim=stage.dim) + scale + stage.mlp_params

    def build(self, stage: StagePlan, mixer: MixerSpec, *, drop_path: float) -> nn.Module:
        return SingleResidual(stage, mixer, drop_path=drop_path)


class SingleResidual(Block):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, stage: StagePlan, mixer: MixerSpec, *, drop_path: float) -> None:
        super().__init__(stage, mixer)
        self.drop = nn.Dropout(stage.drop_rate)
        self.norm = build_norm(stage.norm, stage.dim)
        self.mlp = Mlp(
            stage.dim,
            stage.hidden_dim,
            activation=build_activation(stage.activation),
            bias=stage.mlp_bias,
            drop_rate=stage.drop_rate,
        )
        self.layer_scale = layer_scale(stage.dim, stage.layer_scale)
        self.drop_path = DropPath(drop_path)

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        widened = functional.mlp(self.mlp, self.drop(mixed), self.norm)
        return cast(Tensor, x + self.drop_path(self.layer_scale(widened)))
