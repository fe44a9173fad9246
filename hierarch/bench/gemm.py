"""The GEMM limit: the speed of a large matrix multiplication, timed in the same rotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from hierarch.bench.settings import Setting
from hierarch.nn import functional
from hierarch.timing import ratio

GEMM_LIKE = frozenset(
    (
        *("_convolution", "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "einsum"),
        "scaled_dot_product_attention",
    )
)
"""Operators whose MACs are matrix products; fvcore also counts norms, which are not."""
PASSES = {"forward": 1, "training": 3}
"""Multiplications per layer: the backward pass has two, for the gradients of weight and input."""


def gemm_macs(operators: Mapping[str, int], setting: Setting) -> int:
    """The multiply-adds of one call in matrix products."""
    forward = sum(macs for name, macs in operators.items() if name in GEMM_LIKE)
    return forward * setting.batch * PASSES[setting.mode]


def multiplications(side: int, setting: Setting) -> dict[str, Callable[[], object]]:
    """Two ways to multiply (side, side) by (side, side), side³ multiply-adds, by name.

    The faster one is the limit. torch.mm alone is not: its library can be slower than oneDNN, which
    networks may use, so that a network could exceed the limit.
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
    """The share of the GEMM limit that a contender achieves: the time for `macs` multiply-adds at
    the limit over the contender's time; the median over the rounds.

    >>> share(4, (2.0, 2.0), 2, (1.0, 3.0))
    0.5
    """
    return macs / side**3 * ratio(limit, seconds)
