"""The machine's limit: what a large matrix multiplication achieves, in the same rotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from hierarch.bench.settings import Setting
from hierarch.bench.timing import ratio

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


def multiplication(side: int, setting: Setting) -> Callable[[], object]:
    """(side, side) times (side, side), as a contender: side³ multiply-adds a call."""
    left, right = (
        torch.randn(side, side).to(setting.device, setting.torch_dtype) for _ in range(2)
    )
    out = torch.empty_like(left)

    def call() -> object:
        with torch.inference_mode():
            torch.mm(left, right, out=out)
        if setting.device == "cuda":
            torch.cuda.synchronize()
        return out

    return call


def share(macs: int, seconds: tuple[float, ...], side: int, limit: tuple[float, ...]) -> float:
    """How much of the limit a contender achieves: the time that the machine needs for as many
    multiply-adds in large multiplications, over the contender's; the median over the rounds.

    >>> share(4, (2.0, 2.0), 2, (1.0, 3.0))
    0.5
    """
    return macs / side**3 * ratio(limit, seconds)
