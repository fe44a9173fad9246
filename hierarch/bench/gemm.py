"""The machine's limit: what a large matrix multiplication achieves, in the same rotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from hierarch.bench.settings import Setting
from hierarch.bench.timing import ratio
from hierarch.nn import functional

GEMM_LIKE = frozenset(
    (
        *("_convolution", "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "einsum"),
        "scaled_dot_product_attention",
    )
)
"""The operators whose multiply-adds count: fvcore's 5 an element of a norm are no GEMM."""
PASSES = {"forward": 1, "training": 3}
"""A backward pass multiplies twice: for the gradient of the weights, and of the inputs."""


def gemm_macs(operators: Mapping[str, int], setting: Setting) -> int:
    """The multiply-adds of one call."""
    forward = sum(macs for name, macs in operators.items() if name in GEMM_LIKE)
    return forward * setting.batch * PASSES[setting.mode]


def multiplications(side: int, setting: Setting) -> dict[str, Callable[[], object]]:
    """(side, side) times (side, side), side³ multiply-adds a call, in two ways by name.

    The faster one is the limit. torch.mm alone is none: its library can be slower than oneDNN,
    which networks may run on, so that a network could seem to reach what the machine cannot.
    """
    left, right = (
        torch.randn(side, side).to(setting.device, setting.torch_dtype) for _ in range(2)
    )
    out = torch.empty_like(left)
    layer = nn.Linear(side, side, bias=False)
    layer = layer.to(setting.device, setting.torch_dtype)

    def timed(multiply: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                result = multiply()
            if setting.device == "cuda":
                torch.cuda.synchronize()
            return result

        return call

    return {
        "torch.mm": timed(lambda: torch.mm(left, right, out=out)),
        "linear": timed(lambda: functional.linear(layer, left)),
    }


def share(macs: int, seconds: tuple[float, ...], side: int, limit: tuple[float, ...]) -> float:
    """How much of the limit a contender achieves: the time that the machine needs for as many
    multiply-adds in large multiplications, over the contender's; the median over the rounds.

    >>> share(4, (2.0, 2.0), 2, (1.0, 3.0))
    0.5
    """
    return macs / side**3 * ratio(limit, seconds)
