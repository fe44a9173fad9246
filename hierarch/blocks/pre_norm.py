"""The block of ViT, Swin and MetaFormer: each branch starts with a norm."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, Strict
from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.layers import DropPath, build_norm, layer_scale
from hierarch.nn.stage import Block
from hierarch.spec.backbone import Position
from hierarch.spec.grid import Sides
from hierarch.spec.parts import BlockSpec, PositionSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class PreNormSpec(BlockSpec):
    """x + mixer(norm(x)), then x + channel_mixer(norm(x))."""

    formula: ClassVar[str] = "two norms, and those of its mixers"
    paper: ClassVar[str] = "Yu et al. 2021, arXiv:2111.11418, eq. (1)-(3)"
    norms: ClassVar[int] = 1

    type: Literal["pre_norm"] = "pre_norm"
    """A norm before each mixer, Swin's and MetaFormer's."""
    residual_scale: Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False)] | None = (
        None
    )
    """Initial value of a learned factor per channel on the skip connections (Shleifer et al. 2021,
    arXiv:2110.09456), as in MetaFormer's last stages; null for none."""
    position: Position = None
    """A position embedding before each half of the block, such as DaViT's conditional one; null for
    none."""

    @property
    def axes(self) -> int | None:
        return self.position.axes if self.position else None

    @property
    def needs_grid(self) -> bool:
        return self.position is not None

    def check(self, *, dim: int) -> None:
        if self.position:
            self.position.check(dim=dim)

    def positions(self, block: BlockPlan) -> dict[str, PositionSpec]:
        position = self.position
        return {f"position{half + 1}": position for half in range(block.norms) if position}

    def params(self, block: BlockPlan) -> int:
        # of each branch, a norm, and a factor per channel of it and of what skips it
        scales = (block.layer_scale is not None) + (self.residual_scale is not None)
        branch = block.norm.params(dim=block.dim) + scales * block.dim
        positions = self.positions(block).values()
        placed = sum(position.params(dim=block.dim) for position in positions)
        return block.norms * branch + placed + block.channel_mixer.params(block)

    def build(self, block: BlockPlan, *, drop_path: float) -> nn.Module:
        options: Any = {"drop_path": drop_path, "residual_scale": self.residual_scale}
        if self.position is None:
            return PreNorm(block, **options)
        return PositionedPreNorm(block, position=self.position, **options)


class PreNorm(Block):
    """(B, H, W, C) -> (B, H, W, C). `position2` is the second half's."""

    def __init__(
        self,
        block: BlockPlan,
        *,
        drop_path: float,
        residual_scale: float | None = None,
        norm_init: float = 1,
    ) -> None:
        super().__init__(block)
        dim = block.dim
        self.norm1 = build_norm(block.norm, dim, init=norm_init)
        self.drop = nn.Dropout(block.drop_rate)
        self.layer_scale1 = layer_scale(dim, block.layer_scale)
        self.drop_path1 = DropPath(drop_path)
        self.residual_scale1 = layer_scale(dim, residual_scale)
        mlp = block.channel_mixer.build(block)
        if mlp is None:
            self.mlp = None
            return
        self.position2: nn.Module = nn.Identity()
        self.norm2 = build_norm(block.norm, dim, init=norm_init)
        self.mlp = mlp
        self.layer_scale2 = layer_scale(dim, block.layer_scale)
        self.drop_path2 = DropPath(drop_path)
        self.residual_scale2 = layer_scale(dim, residual_scale)

    def before(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm1(x))

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        mixed = self.layer_scale1(self.drop(mixed))
        x = self.residual_scale1(x) + self.drop_path1(mixed)
        if self.mlp is None:
            return x
        x = self.position2(x)
        widened = self.layer_scale2(functional.mlp(self.mlp, x, self.norm2))
        return cast(Tensor, self.residual_scale2(x) + self.drop_path2(widened))


class PositionedPreNorm(PreNorm):
    """(B, H, W, C) -> (B, H, W, C), with a position embedding before each half."""

    def __init__(self, block: BlockPlan, *, position: PositionSpec, **options: Any) -> None:
        super().__init__(block, **options)
        self.position1 = position.build(block.dim)
        if self.mlp is not None:
            self.position2 = position.build(block.dim)

    def forward(self, x: Tensor, grid: Sides | None = None) -> Tensor:
        return super().forward(self.position1(x), grid)
