"""`engine.explain` for specs, in the settings of a benchmark; nothing is timed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from hierarch.bench.calls import ready
from hierarch.bench.contenders import spec_contender
from hierarch.bench.machine import threads_of_torch
from hierarch.bench.settings import settings
from hierarch.errors import BenchError
from hierarch.report import shown_size
from hierarch.report.engine import Explanations
from hierarch.spec.load import Source, load


def explain_specs(
    specs: Iterable[Source],
    *,
    sizes: Iterable[int | Sequence[int]] | None = None,
    batches: Iterable[int] = (1,),
    dtypes: Iterable[str] = ("float32",),
    modes: Iterable[str] = ("forward",),
    packed: bool = False,
    threads: int | None = None,
    device: str = "cpu",
) -> Explanations:
    """`engine.explain` for each spec in each setting; the arguments are those of `benchmark`.

    Weights and images are random. For a training step, its forward pass is explained. Raises
    `BenchError` if the package was installed without `hierarch.engine`, and wherever `benchmark`
    does.
    """
    try:
        from hierarch import engine
    except ImportError:
        raise BenchError("without hierarch.engine every operation runs its definition") from None
    loaded = [load(source) for source in specs]
    if not loaded:
        raise BenchError("no spec to explain")
    planned = settings(
        modes=modes,
        sizes=sizes,
        batches=batches,
        dtypes=dtypes,
        threads=threads,
        device=device,
        default_size=loaded[0].size,
    )
    explanations = []
    for setting in planned:
        for spec in loaded:
            contender = replace(spec_contender(spec), execution="packed" if packed else "eager")
            network, images = ready(contender, setting)
            autograd_on = setting.mode == "training"
            with threads_of_torch(setting.threads), torch.inference_mode(not autograd_on):
                explanation = engine.explain(network, images)
            where = f"{shown_size(setting.size)}, batch {setting.batch}, {setting.dtype}"
            title = f"{spec.name}, {where}, {setting.mode}{', packed' if packed else ''}"
            explanations.append(replace(explanation, of=title))
    return Explanations(tuple(explanations))
