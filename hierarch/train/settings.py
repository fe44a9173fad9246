"""Where a run runs: what Lightning Fabric is told, and no more."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierarch.errors import TrainError
from hierarch.needs import require
from hierarch.spec.base import nearest
from hierarch.train.loggers import logger

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers.logger import Logger
    from lightning.fabric.strategies.strategy import Strategy

PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
STRATEGIES = ("auto", "ddp", "fsdp2")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The flags of Fabric: the same code runs on a CPU, on a GPU, on several and on several nodes.

    `strategy` "ddp" trains in several processes that share each batch; "auto" does where `devices`
    are several. With "fsdp2" they share the weights too, of which each holds a part.

    >>> Machine(accelerator="cpu", devices="1").strategy
    'auto'
    """

    accelerator: str = "auto"
    devices: str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    workers: int = 0
    """Processes that prepare images, of each training process."""
    loggers: Sequence[str | Logger] = ()
    """tensorboard, wandb or mlflow, or loggers of Fabric's."""

    def fabric(self, precision: str, run: str, *, trains: bool = True) -> Fabric:
        """A launched Fabric. Raises `TrainError` for a flag that it refuses.

        A CPU does not train in float16; what was trained in it elsewhere computes in float32 there.
        """
        require("lightning", "torchvision")
        if self.strategy not in STRATEGIES:
            wrong = self.strategy
            raise TrainError(f"--strategy {wrong[:80]!r}: {nearest(wrong, STRATEGIES)}")
        loggers = [logger(name, run) for name in self.loggers]
        fabric = self._fabric(_arithmetic(precision), loggers)
        if precision == "float16" and fabric.device.type == "cpu":
            if trains:
                raise TrainError("precision float16 is for GPUs: take bfloat16 or float32 on a CPU")
            fabric = self._fabric(_arithmetic("float32"), loggers)
        fabric.launch()
        return fabric

    def _fabric(self, arithmetic: dict[str, Any], loggers: list[Any]) -> Fabric:
        from lightning.fabric import Fabric

        with warnings.catch_warnings():
            # that it takes bfloat16 instead, which is not what was asked for
            warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported on CPU")
            try:
                return Fabric(
                    accelerator=self.accelerator,
                    devices=int(self.devices)
                    if self.devices.lstrip("-").isdecimal()
                    else self.devices,
                    num_nodes=self.nodes,
                    strategy=_fsdp2() if self.strategy == "fsdp2" else self.strategy,
                    loggers=loggers,
                    **arithmetic,
                )
            except (ValueError, RuntimeError, TypeError) as error:
                raise TrainError(f"Lightning Fabric refuses these devices: {error}") from None


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
