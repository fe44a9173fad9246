"""Tokens outside of the grid: class, distillation and register tokens (ViT, DeiT, DINOv2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hierarch.spec.extra_tokens import ExtraTokensSpec


class ExtraTokens(nn.Module):
    """(B, H, W, C) -> (B, 1, P + H*W, C): P learned tokens, then those of the grid, in one row."""

    def __init__(self, spec: ExtraTokensSpec, dim: int) -> None:
        super().__init__()
        self.count = spec.count

        def learned(count: int) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(1, count, dim)) if count else None

        self.class_token = learned(spec.class_token)
        self.distillation_token = learned(spec.distillation_token)
        self.registers = learned(spec.registers)
        self.position = learned(self.count * spec.positions)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for tokens in self.parameters():
            nn.init.trunc_normal_(tokens, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        own = (self.class_token, self.distillation_token, self.registers)
        extra = torch.cat([tokens for tokens in own if tokens is not None], 1)
        if self.position is not None:
            extra = extra + self.position
        extra = extra.expand(x.shape[0], -1, -1).to(x.dtype)
        return torch.cat([extra, x.flatten(1, 2)], 1)[:, None]


def without_extra(x: Tensor, count: int) -> Tensor:
    """(B, 1, P + N, C) -> (B, 1, N, C): the grid's tokens, for P = `count`."""
    return x[:, :, count:]
