"""The fields and the claim of an inverted residual with squeeze-and-excitation (MBConv).

MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, section 3.3), with the squeeze-and-excitation of
Hu et al. 2017 (arXiv:1709.01507, section 3), as in EfficientNet, CoAtNet and MaxViT.
"""

from __future__ import annotations

from hierarch.spec.base import Flag, Kernel, Ratio, Spec
from hierarch.spec.grid import Sides, tokens
from hierarch.spec.head import Activation, Norm
from hierarch.spec.parts import linear_params
from hierarch.spec.registry import default


class InvertedResidualSpec(Spec):
    """What all parts have that are made of an inverted residual: a linear layer that widens the
    channels, a depthwise convolution, each with a norm and an activation, squeeze-and-excitation,
    and a linear layer back."""

    kernel_size: Kernel = 3
    """Tokens along a side of the depthwise kernel; odd."""
    expand_ratio: Ratio = 4
    """Width of the convolution, as a multiple of dim."""
    squeeze_ratio: Ratio | None = 0.25
    """Width of the hidden layer of squeeze-and-excitation, as a multiple of dim; null for no
    squeeze-and-excitation."""
    norm: Norm = default("norm", "batch_norm")
    """After the first linear layer, and after the convolution."""
    activation: Activation = default("activation", "gelu")
    """After each of these norms."""
    squeeze_activation: Activation = default("activation", "silu")
    """In the hidden layer of squeeze-and-excitation."""
    bias: Flag = True
    """A bias of the last linear layer, and of one on a skip connection. Layers before a norm have
    none."""

    def hidden_dim(self, dim: int) -> int:
        """D: the width of the convolution."""
        return max(1, int(self.expand_ratio * dim))

    def squeezed_dim(self, dim: int) -> int:
        """R: the width of the hidden layer of squeeze-and-excitation; 0 for none."""
        return max(1, int(self.squeeze_ratio * dim)) if self.squeeze_ratio else 0

    def branch_macs(self, *, in_dim: int, dim: int, grid: Sides, out_grid: Sides) -> int:
        """The claim, on a grid that the convolution turns into `out_grid`."""
        n, out, hidden = tokens(grid), tokens(out_grid), self.hidden_dim(dim)
        # widen: N·C·D; K² for each of D channels, and narrow: N'·D·C'
        layers = n * in_dim * hidden + out * hidden * (self.kernel_size**2 + dim)
        norms = sum(self.norm.macs(dim=hidden, grid=at) for at in (grid, out_grid))
        # of the mean over all tokens: D·R + R·D
        return layers + norms + 2 * hidden * self.squeezed_dim(dim)

    def branch_params(self, *, in_dim: int, dim: int) -> int:
        """The claim: parameters."""
        hidden, squeezed = self.hidden_dim(dim), self.squeezed_dim(dim)
        total = linear_params(in_dim, hidden, bias=False) + self.kernel_size**2 * hidden
        total += linear_params(hidden, dim, bias=self.bias)
        total += 2 * (self.norm.params(dim=hidden) + self.activation.params())
        if squeezed:
            total += linear_params(hidden, squeezed) + linear_params(squeezed, hidden)
            total += self.squeeze_activation.params()
        return total
