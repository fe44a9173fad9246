"""Which way each operation takes for some images, and what refused the faster ways."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hierarch.engine.keeping import kept
from hierarch.engine.seam import Op, Refusal, definition
from hierarch.engine.table import SEAM
from hierarch.report.engine import Explanation, Step

UNSEEN = "constant"
"""An operation that is a step only where the engine takes it over."""


def explain(network: nn.Module, images: Tensor) -> Explanation:
    """Runs `network(images)` as it would run, and says how: with autograd as it is now, in training
    or eval mode as it is now, with whatever hooks and wrapped layers it has. It says, too, how many
    bytes the engine keeps after it, for all networks of the process.

    Not to be called while the process runs other networks: their operations would be listed, too.

    >>> import torch
    >>> from hierarch import build
    >>> model = build("swin_tiny").eval()
    >>> with torch.no_grad():
    ...     explained = explain(model, torch.zeros(1, 3, 224, 224))
    >>> explained.way("stages.0", "Stage.forward")
    'streamed'
    """
    recorder = _Recorder(network, asks=SEAM.runner is not definition)
    with SEAM.running(recorder.runner):
        network(images)
    return Explanation(tuple(recorder.steps.values()), kept=kept())


class _Recorder:
    """Runs each operation as `dispatch` does, or as its definition, and keeps how."""

    def __init__(self, network: nn.Module, *, asks: bool) -> None:
        self.names = {id(module): name for name, module in network.named_modules()}
        self.asks = asks
        """Whether ways are asked, or definitions run."""
        self.steps: dict[tuple[str, str, str], Step] = {}
        self._lock = threading.Lock()
        self._inside = threading.local()

    def runner(self, op: Op) -> Callable[..., Any]:
        @functools.wraps(op.definition)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._run(op, args, kwargs)

        return call

    def _run(self, op: Op, args: Any, kwargs: Any) -> Any:
        run, way, refused = op.definition, "definition", []
        for other in op.ways if self.asks else ():
            refusal = other.refuses(*args, **kwargs)
            if refusal is None:
                run, way = other.run, other.name
                break
            if not refusal.inapplicable:
                refused.append((other.name, self._reason(refusal)))
        outer = getattr(self._inside, "module", "")
        # the module that an operation works for: its first argument, or the one that calls it
        self._inside.module = self.names.get(id(args[0]), outer)
        if op.label != UNSEEN or way != "definition":
            self._add(Step(self._inside.module, op.label, way, 1, tuple(refused)))
        try:
            return run(*args, **kwargs)
        finally:
            self._inside.module = outer

    def _add(self, step: Step) -> None:
        key = (step.module, step.operation, step.way)
        with self._lock:
            known = self.steps.get(key)
            calls = known.calls + 1 if known else 1
            self.steps[key] = Step(*key, calls, known.refused if known else step.refused)

    def _reason(self, refusal: Refusal) -> str:
        if refusal.module is None:
            return refusal.reason
        name = self.names.get(id(refusal.module)) or type(refusal.module).__name__
        if "{module}" in refusal.reason:
            return refusal.reason.format(module=name)
        return f"{refusal.reason} ({name})"
