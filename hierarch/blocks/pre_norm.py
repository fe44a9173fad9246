"""The block of ViT, Swin and MetaFormer: each branch starts with a norm."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.layers import DropPath, Mlp, build_activation, build_norm, layer_scale
from hierarch.nn.stage import Block
from hierarch.spec.backbone import StagePlan
from hierarch.spec.parts import BlockSpec, MixerSpec
from hierarch.spec.registry import register


@register
class PreNormSpec(BlockSpec):
    """x + mixer(norm(x)), then x + mlp(norm(x))."""

    formula: ClassVar[str] = "two norms, the mixer's and the MLP's"
    paper: ClassVar[str] = "Yu et al. 2021, arXiv:2111.11418, eq. (1)-(3)"
    norms: ClassVar[int] = 2

    type: Literal["pre_norm"] = "pre_norm"
    """A norm before the mixer and one before the MLP, Swin's and MetaFormer's."""
    residual_scale: Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False)] | None = (
        None
    )
    """Initial value of a learned factor per channel on the skip connections (Shleifer et al. 2021,
    arXiv:2110.09456), as in MetaFormer's last stages; null for none."""

    def params(self, stage: StagePlan, mixer: MixerSpec) -> int:
        # two norms, the MLP, and a factor per channel of each branch and of what skips it
        scales = (stage.layer_scale is not None) + (self.residual_scale is not None)
        return 2 * (stage.norm.params(dim=stage.dim) + scales * stage.dim) + stage.mlp_params

    def build(self, stage: StagePlan, mixer: MixerSpec, *, drop_path: float) -> nn.Module:
        return PreNorm(stage, mixer, drop_path=drop_path, residual_scale=self.residual_scale)


class PreNorm(Block):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(
        self,
        stage: StagePlan,
        mixer: MixerSpec,
        *,
        drop_path: float,
        residual_scale: float | None = None,
        norm_init: float = 1,
    ) -> None:
        super().__init__(stage, mixer)
        dim = stage.dim
        self.norm1 = build_norm(stage.norm, dim, init=norm_init)
        self.drop = nn.Dropout(stage.drop_rate)
        self.layer_scale1 = layer_scale(dim, stage.layer_scale)
        self.drop_path1 = DropPath(drop_path)
        self.residual_scale1 = layer_scale(dim, residual_scale)
        self.norm2 = build_norm(stage.norm, dim, init=norm_init)
        self.mlp = Mlp(
            dim,
            stage.hidden_dim,
            activation=build_activation(stage.activation),
            bias=stage.mlp_bias,
            drop_rate=stage.drop_rate,
        )
        self.layer_scale2 = layer_scale(dim, stage.layer_scale)
        self.drop_path2 = DropPath(drop_path)
        self.residual_scale2 = layer_scale(dim, residual_scale)

    def before(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm1(x))

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        mixed = self.layer_scale1(self.drop(mixed))
        x = self.residual_scale1(x) + self.drop_path1(mixed)
        widened = self.layer_scale2(functional.mlp(self.mlp, x, self.norm2))
        return cast(Tensor, self.residual_scale2(x) + self.drop_path2(widened))
