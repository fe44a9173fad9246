"""Where a run runs: what Lightning Fabric is told, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierarch.errors import TrainError
from hierarch.spec.base import nearest
from hierarch.train.loggers import logger
from hierarch.train.needs import require

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers.logger import Logger
    from lightning.fabric.strategies.strategy import Strategy

PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed"}
STRATEGIES = ("auto", "ddp", "fsdp2")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The flags of Fabric: the same code runs on a CPU, on a GPU, on several and on several nodes.

    `strategy` "ddp" trains in several processes that share each batch; "auto" does where `devices`
    are several. With "fsdp2" they share the weights too, of which each holds a part.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    workers: int = 0
    """Processes that prepare images, of each training process."""
    loggers: Sequence[str | Logger] = ()
    """tensorboard, wandb or mlflow, or loggers of Fabric's."""

    def fabric(self, precision: str, run: str) -> Fabric:
        """A launched Fabric. Raises `TrainError` for a flag that it refuses."""
        require("lightning", "torchvision")
        from lightning.fabric import Fabric

        if self.strategy not in STRATEGIES:
            wrong = self.strategy
            raise TrainError(f"--strategy {wrong[:80]!r}: {nearest(wrong, STRATEGIES)}")
        loggers = [logger(name, run) for name in self.loggers]
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=int(self.devices) if self.devices.lstrip("-").isdecimal() else self.devices,
                num_nodes=self.nodes,
                strategy=_fsdp2() if self.strategy == "fsdp2" else self.strategy,
                loggers=loggers,
                **_arithmetic(precision),
            )
        except (ValueError, RuntimeError, TypeError) as error:
            raise TrainError(f"Lightning Fabric refuses these devices: {error}") from None
        fabric.launch()
        return fabric


def _fsdp2() -> Strategy:
    from lightning.fabric.strategies.model_parallel import ModelParallelStrategy

    from hierarch.train.sharding import shard

    return ModelParallelStrategy(shard)


def _arithmetic(precision: str) -> dict[str, Any]:
    """What Fabric is told of a precision. Of float64 it gets the plugin, since it refuses FSDP2 the
    name of it."""
    if precision == "float64":
        from lightning.fabric.plugins.precision import DoublePrecision

        return {"plugins": [DoublePrecision()]}
    return {"precision": PRECISION[precision]}
