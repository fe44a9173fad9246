"""Where a run runs: what Lightning Fabric is told, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierarch.errors import TrainError
from hierarch.spec.base import nearest
from hierarch.train.needs import require

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers.logger import Logger

PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float64": "64-true"}
LOGGERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The flags of Fabric: the same code runs on a CPU, on a GPU, on several and on several nodes.

    `strategy` "ddp" trains in several processes that share each batch; "auto" does where `devices`
    are several.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    workers: int = 0
    """Processes that prepare images, of each training process."""
    loggers: Sequence[str | Logger] = ()
    """Names among `LOGGERS`, or loggers of Fabric's."""

    def fabric(self, precision: str, run: str) -> Fabric:
        """A launched Fabric. Raises `TrainError` for a flag that it refuses."""
        require("lightning", "torchvision")
        from lightning.fabric import Fabric

        known = ("auto", "ddp")
        if self.strategy not in known:
            raise TrainError(f"--strategy {self.strategy[:80]!r}: {nearest(self.strategy, known)}")
        loggers = [_logger(name, run) for name in self.loggers]
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=int(self.devices) if self.devices.lstrip("-").isdecimal() else self.devices,
                num_nodes=self.nodes,
                strategy=self.strategy,
                precision=PRECISION[precision],  # type: ignore[arg-type]  # Fabric names its strings
                loggers=loggers,
            )
        except (ValueError, RuntimeError, TypeError) as error:
            raise TrainError(f"Lightning Fabric refuses these devices: {error}") from None
        fabric.launch()
        return fabric


def _logger(name: str | Logger, run: str) -> Any:
    if not isinstance(name, str):
        return name
    if name == "tensorboard":
        require("tensorboard")
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(root_dir=run, name="tensorboard", version="")
    if name == "wandb":
        require("wandb", extra="wandb")
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(save_dir=run)
    if name == "mlflow":
        require("mlflow", extra="mlflow")
        from lightning.pytorch.loggers import MLFlowLogger

        return MLFlowLogger()
    raise TrainError(f"--log {name[:80]!r}: {nearest(name, LOGGERS)}")
