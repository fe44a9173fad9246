"""A block, and a stage of them: a MetaFormer (Yu et al. 2021, arXiv:2111.11418, eq. 1-2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hierarch.model.layers import DropPath, LayerScale, Mlp
from hierarch.spec.backbone import StagePlan
from hierarch.spec.parts import MixerSpec


class Block(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, plan: StagePlan, mixer: MixerSpec, *, drop_path: float) -> None:
        super().__init__()
        dim, scale = plan.dim, plan.layer_scale
        self.norm1 = plan.norm.build(dim)
        self.mixer = mixer.build(dim)
        self.drop = nn.Dropout(plan.drop_rate)
        self.layer_scale1 = LayerScale(dim, scale) if scale else nn.Identity()
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = plan.norm.build(dim)
        self.mlp = Mlp(dim, plan.hidden_dim, drop_rate=plan.drop_rate)
        self.layer_scale2 = LayerScale(dim, scale) if scale else nn.Identity()
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.drop(self.mixer(self.norm1(x)))
        x = x + self.drop_path1(self.layer_scale1(mixed))
        widened = self.mlp(self.norm2(x))
        out: Tensor = x + self.drop_path2(self.layer_scale2(widened))
        return out


class Stage(nn.Module):
    """(B, H, W, in_dim) -> (B, h, w, dim): a downsampling, then blocks on one grid.

    `norm` is the norm of the stage's map where the network returns it; it is not part of what the
    next stage sees.
    """

    def __init__(self, plan: StagePlan) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = (
            plan.downsample.build(plan.in_dim, plan.dim) if plan.downsample else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            Block(plan, mixer, drop_path=rate)
            for mixer, rate in zip(plan.mixers, plan.drop_paths, strict=True)
        )
        self.norm: nn.Module = (
            plan.output_norm.build(plan.dim) if plan.output_norm else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x
