"""Which way each operation takes for some images, and what refused the faster ways."""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor, nn

from hierarch.nn import functional, ops
from hierarch.nn.ops import Op, Refusal
from hierarch.report.engine import Explanation, Step


def explain(network: nn.Module, images: Tensor) -> Explanation:
    """Runs `network(images)` as it would run, and says how: with autograd as it is now, in training
    or eval mode as it is now, with whatever hooks and wrapped layers it has.

    Not to be called while the process runs other networks: their operations would be listed, too.
    """
    recorder = _Recorder(network)
    with ops.observed(recorder):
        network(images)
    return Explanation(tuple(recorder.steps.values()))


class _Recorder:
    """Makes each call of an op as `Op.__call__` does, and keeps how."""

    def __init__(self, network: nn.Module) -> None:
        self.names = {id(module): name for name, module in network.named_modules()}
        self.steps: dict[tuple[str, str, str], Step] = {}
        self._lock = threading.Lock()
        self._inside = threading.local()

    def __call__(self, op: Op[..., Any], args: Any, kwargs: Any) -> Any:
        run, way, refused = op.definition, "definition", []
        for other in op.ways if ops.is_enabled() else ():
            refusal = other.refuses(*args, **kwargs)
            if refusal is None:
                run, way = other.run, other.name
                break
            if not refusal.inapplicable:
                refused.append((other.name, self._reason(refusal)))
        outer = getattr(self._inside, "module", "")
        self._inside.module = self._module(op, args, outer)
        if op is not functional.constant or way != "definition":
            self._add(Step(self._inside.module, op.definition.__name__, way, 1, tuple(refused)))
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

    def _module(self, op: Op[..., Any], args: Any, outer: str) -> str:
        """The module that an op works for: its first argument, or the one that calls it."""
        if op is functional.stage:
            name = self.names.get(id(args[1]))
            return outer if name is None else name.removesuffix(".blocks")
        name = self.names.get(id(args[0]))
        return outer if name is None else name

    def _reason(self, refusal: Refusal) -> str:
        if refusal.module is None:
            return refusal.reason
        name = self.names.get(id(refusal.module)) or type(refusal.module).__name__
        if "{module}" in refusal.reason:
            return refusal.reason.format(module=name)
        return f"{refusal.reason} ({name})"
