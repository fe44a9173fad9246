"""The inverted residual with squeeze-and-excitation, which mixers and downsamplings share."""

from __future__ import annotations

from torch import Tensor, nn

from hierarch.nn import functional, init
from hierarch.nn.convolution import same_padded, strided_conv
from hierarch.nn.layers import build_activation, build_norm
from hierarch.spec.inverted_residual import InvertedResidualSpec
from hierarch.spec.parts import ActivationSpec


class SqueezeExcite(nn.Module):
    """(B, H, W, C) -> the same: each channel times a factor from 0 to 1, which two linear layers
    make of the means of all channels (Hu et al. 2017, arXiv:1709.01507, eq. 2-4)."""

    def __init__(self, dim: int, hidden_dim: int, *, activation: ActivationSpec) -> None:
        super().__init__()
        self.fc1 = init.linear(dim, hidden_dim)
        self.act = build_activation(activation)
        self.fc2 = init.linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.act(functional.linear(self.fc1, x.mean((1, 2), keepdim=True)))
        return x * functional.linear(self.fc2, squeezed).sigmoid()


class InvertedResidual(nn.Module):
    """(B, H, W, in_dim) -> (B, ceil(H / S), ceil(W / S), dim), with a stride S of the depthwise
    convolution, whose zeros around the map are TensorFlow's "same"."""

    def __init__(
        self, spec: InvertedResidualSpec, *, in_dim: int, dim: int, stride: int = 1
    ) -> None:
        super().__init__()
        hidden, squeezed = spec.hidden_dim(dim), spec.squeezed_dim(dim)
        kernel = spec.kernel_size
        self.stride = stride
        # with a stride of 1, "same" is half of the kernel on each side
        self.reach = {"kernel_size": kernel, "padding": kernel // 2 if stride == 1 else 0}
        self.expand = init.linear(in_dim, hidden, bias=False)
        self.norm1 = build_norm(spec.norm, hidden)
        self.act1 = build_activation(spec.activation)
        self.conv = init.conv2d(
            hidden, hidden, stride=stride, groups=hidden, bias=False, **self.reach
        )
        self.norm2 = build_norm(spec.norm, hidden)
        self.act2 = build_activation(spec.activation)
        self.squeeze: nn.Module = nn.Identity()
        if squeezed:
            self.squeeze = SqueezeExcite(hidden, squeezed, activation=spec.squeeze_activation)
        self.reduce = init.linear(hidden, dim, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(functional.linear(self.expand, x)))
        if self.stride > 1:
            x = same_padded(x, kernel_size=self.reach["kernel_size"], stride=self.stride)
        x = self.act2(self.norm2(strided_conv(self.conv, x, **self.reach)))
        return functional.linear(self.reduce, self.squeeze(x))
