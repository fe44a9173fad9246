"""What all of a stage's blocks share, and what comes before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from hierarch.weights.shapes import ratio
from hierarch.weights.timm_networks.parts import (
    NONE,
    Data,
    activation,
    conv_downsample,
    first_layer,
    mlp,
    need,
    norm,
    optional_norm,
    same,
    scale,
)


def stage(blocks: Sequence[Any], mixer: Callable[[Any], Data | str]) -> Data:
    """A stage, whose blocks differ in nothing but their mixers, and their drop path."""
    mlps = [b.mlp_channels if hasattr(b, "mlp_channels") else b.mlp for b in blocks]
    fields = same(map(mlp, mlps), "MLPs")
    names = ("norm", "norm1", "norm2", "norm1_post", "norm2_post")
    found = (optional_norm(getattr(b, name, NONE)) for b in blocks for name in names)
    norms = [one for one in found if one is not None]
    need(norms, "its blocks have no norms")
    mixers = [mixer(block) for block in blocks]
    # the shortest cycle
    period = next(n for n in range(1, len(mixers) + 1) if mixers[n:] == mixers[: len(mixers) - n])
    return {
        "dim": first_layer(mlps[0]).weight.shape[1],
        "depth": len(blocks),
        "mixer": mixers[:period],
        "norm": same(norms, "norms"),
        **fields,
        "drop_paths": [drop_path(block) for block in blocks],
    }


def parallel_stage(blocks: Sequence[Any]) -> Data:
    """A stage of blocks with attention and MLP side by side."""

    def fields(block: Any) -> Data:
        for inner in ("q_norm", "k_norm"):
            plain = isinstance(getattr(block, inner), nn.Identity)
            need(plain, f"a spec has no {inner} inside attention")
        need(block.out_proj is None, "its block has one layer after attention and MLP")
        need(block.attn_out_proj.bias is not None, "an MLP has biases in both layers, or in none")
        hidden, _, _, dim = block.in_split
        return {
            "dim": dim,
            "block": "parallel",
            "mixer": [
                {
                    "type": "global_attention",
                    "head_dim": block.head_dim,
                    "qkv_bias": block.in_proj.bias is not None,
                }
            ],
            "norm": norm(block.in_norm),
            "mlp_ratio": ratio(hidden, dim),
            "activation": activation(block.mlp_act),
        }

    return same(map(fields, blocks), "blocks") | {
        "depth": len(blocks),
        "layer_scale": scale(getattr(blocks[0].ls, "gamma", None), 1e-5),
        "drop_paths": [drop_path(block) for block in blocks],
    }


def drop_path(block: Any) -> float:
    """The rate of a block's drop path."""
    rates = (float(m.drop_prob) for m in block.modules() if type(m).__name__ == "DropPath")
    return max(rates, default=0.0)


def drop_path_rate(rates: Sequence[float]) -> float:
    """The rate that rises from 0 in the first block to this one in the last, as a spec's does."""
    last = max(1, len(rates) - 1)
    rises = all(abs(rate - rates[-1] * i / last) < 1e-6 for i, rate in enumerate(rates))
    need(rises, "its drop path does not rise from the first block to the last as a spec's does")
    return round(rates[-1], 6)


def children(module: nn.Module, *names: str) -> list[nn.Module]:
    """These submodules; none for `nn.Identity`."""
    plain = isinstance(module, nn.Identity)
    return [] if plain else [module.get_submodule(name) for name in names]


def downsample(one: Data, *layers: nn.Module, first: bool) -> None:
    """Sets the downsampling of a stage, which every stage but the first has to have."""
    need(layers or first, "a spec has no stage, but the first, without a downsampling")
    if layers:
        one["downsample"] = conv_downsample(*layers)
