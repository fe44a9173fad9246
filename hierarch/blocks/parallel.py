"""The block of ViT-22B: mixer and channel mixer side by side."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from hierarch.nn import functional
from hierarch.nn.layers import DropPath, build_norm, layer_scale
from hierarch.nn.stage import Block
from hierarch.spec.grid import Sides
from hierarch.spec.parts import BlockSpec
from hierarch.spec.plan import BlockPlan
from hierarch.spec.registry import register


@register
class ParallelSpec(BlockSpec):
    """x + mixer(norm(x)) + channel_mixer(norm(x)): both read one norm, and have one residual sum,
    layer scale and drop path.

    >>> from hierarch import load
    >>> stages = [{"dim": 64, "depth": 1, "block": "parallel"}]
    >>> block = load({"mixer": "pooling", "stages": stages}).plan()[0].blocks[0]
    >>> block.norms, block.spec.params(block)
    (1, 33216)
    """

    formula: ClassVar[str] = "one norm, and those of its mixers"
    paper: ClassVar[str] = "Dehghani et al. 2023, arXiv:2302.05442, section 2, Parallel layers"
    norms: ClassVar[int] = 1

    type: Literal["parallel"] = "parallel"
    """Mixer and channel mixer side by side, ViT-22B's."""

    def norm_count(self, block: BlockPlan) -> int:
        return self.norms

    def params(self, block: BlockPlan) -> int:
        scale = (block.layer_scale is not None) * block.dim
        return block.norm.params(dim=block.dim) + scale + block.channel_mixer.params(block)

    def build(self, block: BlockPlan, *, drop_path: float) -> nn.Module:
        return Parallel(block, drop_path=drop_path)


class Parallel(Block):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, block: BlockPlan, *, drop_path: float) -> None:
        super().__init__(block)
        self.norm = build_norm(block.norm, block.dim)
        self.drop = nn.Dropout(block.drop_rate)
        self.mlp = block.channel_mixer.build(block)
        self.layer_scale = layer_scale(block.dim, block.layer_scale)
        self.drop_path = DropPath(drop_path)

    def before(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x))

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        return self.joined(x, self.before(x), mixed)

    def joined(self, x: Tensor, normed: Tensor, mixed: Tensor) -> Tensor:
        """(..., C), three times -> (..., C): the sum of input, mixer and channel mixer."""
        branch = self.drop(mixed)
        if self.mlp is not None:
            branch = branch + functional.mlp(self.mlp, normed)
        return cast(Tensor, x + self.drop_path(self.layer_scale(branch)))

    def forward(self, x: Tensor, grid: Sides | None = None) -> Tensor:
        normed = self.before(x)  # once for both
        return self.joined(x, normed, self.mixer(normed, *self.told(grid)))
