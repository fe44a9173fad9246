"""Helpers of several tests: a small network, noise on its weights, comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hierarch
from hierarch import BackboneSpec
from hierarch.report import StreamCall, StreamReport, StreamRow

newer_compiler = pytest.mark.skipif(
    torch.__version__ < "2.14",
    reason="an older torch compiles the plain path, and exports fewer sizes",
)


sharding = pytest.mark.skipif(
    torch.__version__ < "2.7", reason="FSDP2 of torch 2.6 asks a CPU for a GPU's streams"
)

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 has Muon")


def perturb(module: nn.Module, *, seed: int = 0, std: float = 0.05) -> Any:
    """The module in eval mode, with noise added in place to every parameter and running statistic.

    Biases start at 0 and norms at 1, where a mistake in carrying them over would not show.
    """
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter += noise(*parameter.shape, seed=1000 * seed + i) * std
        for i, (name, buffer) in enumerate(module.named_buffers()):
            if name.endswith(("running_mean", "running_var")):
                buffer += noise(*buffer.shape, seed=1000 * seed + i).abs() * std
    return module.eval()


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Seeded standard normal numbers, such as images."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny(mixer: str = "window_attention", **fields: Any) -> dict[str, Any]:
    """A spec of three stages with regular and shifted windows, small enough for any test."""
    regular = {"type": mixer, "head_dim": 4, "window_size": 4}
    return {
        "name": "tiny",
        "mixer": [regular, regular | {"shift_size": 2}],
        "stages": [{"dim": 8, "depth": 2}, {"dim": 16, "depth": 3}, {"dim": 24, "depth": 2}],
        "mlp_ratio": 2,
        **fields,
    }


def tiny_vit(**fields: Any) -> dict[str, Any]:
    """A spec of one stage with tokens outside of the grid, which its mixer is told."""
    return {
        "name": "tiny_vit",
        "input_size": 32,
        "stem": {"type": "patch_embed", "patch_size": 8},
        "extra_tokens": {"class_token": True, "distillation_token": True, "registers": 1},
        "mixer": {"type": "global_attention", "head_dim": 4, "rope": {"temperature": 30}},
        "stages": [{"dim": 8, "depth": 2}],
        "head": {"num_classes": 3, "pool": "class_token"},
        **fields,
    }


def without_mask(source: Any) -> BackboneSpec:
    """A spec in which shifted windows have no mask."""
    spec = hierarch.load(source)
    mixer = [entry.to_data() | {"shift_mask": False} for entry in spec.mixer]
    return hierarch.load(spec.to_data() | {"mixer": mixer})


def shifted_block(mixer: str, **fields: Any) -> Any:
    """A network of one block, whose windows are shifted."""
    entry = {"type": mixer, "head_dim": 4, "window_size": 4, "shift_size": 2, **fields}
    return perturb(hierarch.build(tiny() | {"mixer": entry, "stages": [{"dim": 8, "depth": 1}]}))


def assert_same(found: Any, expected: Any) -> None:
    """Equal up to rounding in float32."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def assert_same_to_scale(found: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    """Equal up to rounding in float32 of a tensor's largest entry. For gradients: where the terms
    of a sum cancel, their rounding errors do not."""
    for one, wanted in zip(found, expected, strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(one / scale, wanted / scale, rtol=0, atol=1e-5)


def shallow(source: str) -> BackboneSpec:
    """A spec with at most two blocks per stage: a trace takes time for each block."""
    spec = hierarch.load(source)
    stages = [stage.to_data() | {"depth": min(stage.depth, 2)} for stage in spec.stages]
    return hierarch.load(spec.to_data() | {"stages": stages})


def one_per_folder(*whole: str) -> list[str]:
    """The first preset of each folder of specs, and all presets of the folders in `whole`."""
    names = sorted(hierarch.presets())
    first = {name.rpartition("/")[0]: name for name in reversed(names)}
    return [n for n in names if n in first.values() or n.startswith(whole)]


def from_timm(state: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """Our state dict with these keys, from the state dict of a Swin Transformer of timm."""

    def theirs(key: str) -> str:
        key = key.replace("stem.", "patch_embed.").replace("stages.", "layers.")
        return key.replace(".mixer.", ".attn.")

    return {key: state[theirs(key)] for key in keys}


def stream_call(seconds: float, resident: int, *sizes: tuple[int, ...]) -> StreamCall:
    return StreamCall(sizes=sizes, seconds=seconds, resident=resident)


def stream_row(
    name: str,
    passes: Iterable[Iterable[StreamCall]],
    *,
    together: int = 0,
    execution: str = "eager",
    built: int | None = 1_000,
) -> StreamRow:
    return StreamRow(
        name=name, is_peer=":" in name, execution=execution, together=together, built=built,
        passes=tuple(map(tuple, passes)),
    )  # fmt: skip


def stream_report() -> StreamReport:
    """Two images through a spec, one by one and as a list, and two peers."""
    a, b = (32, 32), (40, 24)

    def pairs(*seconds: float) -> list[list[StreamCall]]:
        return [
            [stream_call(each, 2_000 + n, a), stream_call(each, 3_000 + n, b)]
            for n, each in enumerate(seconds)
        ]

    both = [[stream_call(1.5, 5_000, a, b)], [stream_call(0.75, 4_000, a, b)]]
    rows = (
        stream_row("own", pairs(1.0, 0.5)),
        stream_row("timm:x", pairs(2.0, 0.25)),
        stream_row("timm:y", pairs(0.5, 1.0), built=None),
        stream_row("own", both, together=2),
    )
    return StreamReport(
        device="A CPU", threads=1, torch="2", dtype="float32", sizes=(a, b), rows=rows
    )
