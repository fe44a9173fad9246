"""A windowed token mixer, whole, in one file. docs/custom-mixer.md walks through it.

The spatial gating unit of gMLP (Liu et al. 2021, arXiv:2105.08050, section 2.1), in windows instead
of over the whole image, as in MAXIM (Tu et al. 2022, arXiv:2201.02973, section 3.2).

    python examples/windowed_mixer.py
"""

from typing import Annotated, ClassVar, Literal

import rich
import torch
from torch import Tensor, nn

import hierarch
from hierarch import engine
from hierarch.nn.cut import Cut, Runs, shifted_cut
from hierarch.nn.window_mixer import WindowMixer
from hierarch.spec.base import Side
from hierarch.spec.grid import Sides, per_axis, slots, tokens
from hierarch.testing import check_mixer


@hierarch.register
class WindowGatingSpec(hierarch.MixerSpec):
    """Half of the channels, mixed over the positions of a window, gates the other half."""

    formula: ClassVar[str] = "3N'C² + M²N'C + 5N'C; N' = N padded to windows, M = window_size"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2105.08050, eq. (2) and (3)"

    type: Literal["window_gating"] = "window_gating"
    """gMLP's spatial gating unit, in windows."""
    window_size: Annotated[int | Sides, Side(1, 64)] = 7
    """Tokens along a side of a window, or [height, width]."""

    def macs(self, *, dim: int, grid: Sides) -> int:
        return slots(self.tile(), grid) * self._macs_per_slot(dim)

    def padding_macs(self, *, dim: int, grid: Sides) -> int:
        return (slots(self.tile(), grid) - tokens(grid)) * self._macs_per_slot(dim)

    def tile(self) -> Sides:
        return per_axis(self.window_size)

    def _macs_per_slot(self, dim: int) -> int:
        # two linear layers, C -> 2C and C -> C; the M^2 positions of a window; a layer norm
        return 3 * dim**2 + tokens(self.tile()) * dim + 5 * dim

    def build(self, dim: int) -> nn.Module:
        return WindowGating(dim, window=self.tile())


class WindowGating(WindowMixer):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, *, window: Sides) -> None:
        super().__init__()
        self.window = window
        self.expand = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.weight = nn.Parameter(torch.empty(tokens(window), tokens(window)))
        self.bias = nn.Parameter(torch.empty(tokens(window), 1))
        self.proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As published: the gate starts near 1."""
        nn.init.trunc_normal_(self.weight, std=1e-3)
        nn.init.ones_(self.bias)

    def cut(self, grid: Sides) -> Cut:
        return shifted_cut(grid, self.window, (0, 0))

    def mix(self, windows: Tensor, cut: Cut, runs: Runs) -> Tensor:
        u, v = self.expand(windows).chunk(2, dim=-1)
        # eq. (2) and (3): W and b act on the positions, and are shared by all channels
        return self.proj(u * (self.weight @ self.norm(v) + self.bias))


if __name__ == "__main__":
    check_mixer("window_gating")
    # a convolution in every second block connects the windows
    network = hierarch.build("swin_tiny", mixer=[{"type": "window_gating"}, "depthwise_conv"])
    rich.print(hierarch.measure(network.spec, sizes=[224, 448, 896]))
    with torch.inference_mode():
        explained = engine.explain(network.eval(), torch.randn(1, 3, 224, 224))
    for block in ("stages.0.blocks.0", "stages.0.blocks.1"):
        print(block, "is computed by:", explained.way(block, "Block.forward"))
