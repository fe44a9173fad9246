"""What the configs of a Swin Transformer say, in any library's words, and the spec of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hierarch.spec.grid import Sides, SmallMap, ceil_div


@dataclass(kw_only=True)
class Swin:
    """A Swin Transformer, V1, V2, or of MLPs. Lists have an entry per stage."""

    name: str
    mixer: str
    """The type of the spec's mixer."""
    dim: int
    depths: Sequence[int]
    heads: Sequence[int]
    windows: Sequence[int]
    input_size: Sides
    patch_size: int = 4
    in_chans: int = 3
    small_map: SmallMap = "pad"
    pretrained_windows: Sequence[int] = ()
    """Windows that V2's position bias was trained with; 0 for the same."""
    qkv_bias: bool = True
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    patch_norm: bool = True
    absolute_position: bool = False
    eps: float = 1e-5
    """Of all norms."""
    drop_rate: float = 0.0
    block_drop_rate: float | None = None
    """Of the blocks, where it is another than after the stem."""
    drop_path_rate: float = 0.0
    head: dict[str, Any] | None = None
    out_indices: Sequence[int] | None = None
    output_norm: bool = True

    @property
    def dims(self) -> list[int]:
        return [self.dim * 2**i for i in range(len(self.depths))]

    def grids(self) -> list[Sides]:
        """The grid of each stage, for images of the config's size."""
        h, w = (ceil_div(side, self.patch_size) for side in self.input_size)
        grids: list[Sides] = []
        for _ in self.depths:
            grids.append((h, w))
            h, w = ceil_div(h, 2), ceil_div(w, 2)
        return grids

    def data(self) -> dict[str, Any]:
        """The spec, as a mapping."""
        norm = {"type": "layer_norm", "eps": self.eps}
        cycles = [self._cycle(i) for i in range(len(self.depths))]
        # what most stages have stands at the top
        [(shared, _)] = Counter(map(str, cycles)).most_common(1)
        top = next(cycle for cycle in cycles if str(cycle) == shared)
        stages: list[dict[str, Any]] = []
        for dim, depth, cycle in zip(self.dims, self.depths, cycles, strict=True):
            stage: dict[str, Any] = {"dim": dim, "depth": depth}
            if cycle != top:
                stage["mixer"] = cycle
            if self.block_drop_rate is not None:
                stage["drop_rate"] = self.block_drop_rate
            stages.append(stage)
        after = self.mixer == "cosine_window_attention"
        data: dict[str, Any] = {
            "name": self.name,
            "input_size": list(self.input_size),
            "stem": {
                "type": "patch_embed",
                "patch_size": self.patch_size,
                "in_chans": self.in_chans,
                "norm": norm if self.patch_norm else None,
            },
            "mixer": top,
            "stages": stages,
            "downsample": {"type": "patch_merging", "norm": norm, "norm_last": after},
            "block": "post_norm" if after else "pre_norm",
            "mlp_ratio": self.mlp_ratio,
            "activation": self.activation,
            "norm": norm,
            "drop_rate": self.drop_rate,
            "drop_path_rate": self.drop_path_rate,
            "output_norm": self.output_norm,
            "out_indices": self.out_indices,
            "head": self.head,
        }
        if self.absolute_position:
            grid = [side // self.patch_size for side in self.input_size]
            data["position_embedding"] = {"type": "absolute", "grid": grid}
        if self.out_indices is not None and list(self.out_indices) == [*range(len(stages))]:
            del data["out_indices"]  # the default
        return data

    def _cycle(self, stage: int) -> list[dict[str, Any]]:
        """The mixers of a stage: every second block is shifted by half a window, rounded down."""
        window = self.windows[stage]
        mixer: dict[str, Any] = {
            "type": self.mixer,
            "head_dim": self.dims[stage] // self.heads[stage],
            "window_size": window,
            "small_map": self.small_map,
        }
        if self.mixer != "window_mlp":
            mixer["qkv_bias"] = self.qkv_bias
        if any(self.pretrained_windows) and self.pretrained_windows[stage]:
            mixer["pretrained_window_size"] = self.pretrained_windows[stage]
        return [mixer, mixer | {"shift_size": window // 2}]
