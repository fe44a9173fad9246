"""Where metrics go beside metrics.csv: what `--log` names, begun before a run, ended after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.errors import TrainError
from hierarch.needs import require
from hierarch.spec.base import nearest

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import Logger

PROJECT = "hierarch"
"""Of Weights & Biases; and mlflow's experiment."""


def logger(name: str | Logger, run: str) -> Any:
    """A logger of Fabric's by its name, or itself. Raises `TrainError` for what it says no to."""
    if not isinstance(name, str):
        return name
    if name not in LOGGERS:
        raise TrainError(f"--log {name[:80]!r}: {nearest(name, LOGGERS)}")
    require(name, extra="train" if name == "tensorboard" else name)
    with _told(name):
        return LOGGERS[name](run)


@contextmanager
def logged(loggers: list[Any]) -> Iterator[None]:
    """While this is entered, loggers take metrics. After it all is written, and each run of theirs
    is ended, since another network's may follow in the same process.

    Raises `TrainError` for one that cannot begin.
    """
    for each in loggers:
        with _told(type(each).__name__):
            _ = getattr(each, "experiment", None)  # which begins it
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        for each in loggers:
            with _told(type(each).__name__):
                each.finalize(status)
                finish = getattr(getattr(each, "experiment", None), "finish", None)
                if finish is not None:  # wandb's
                    finish(exit_code=int(status == "failed"))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What a logger's package raises, in a line: a store that it refuses, a key that is missing."""
    try:
        yield
    except Exception as error:  # each package has its own, and some are of no common base
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainError(f"--log {name}: {reason[0]}") from None


def _tensorboard(run: str) -> Logger:
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(root_dir=run, name="tensorboard", version="")


def _wandb(run: str) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    Path(run).mkdir(parents=True, exist_ok=True)  # wandb writes elsewhere where it is not there
    return WandbLogger(project=PROJECT, name=Path(run).name, save_dir=run)


def _mlflow(run: str) -> Any:
    import mlflow
    from lightning.pytorch.loggers import MLFlowLogger

    # the logger's own default is a store of files, which mlflow 3 refuses
    uri = mlflow.get_tracking_uri()
    return MLFlowLogger(experiment_name=PROJECT, run_name=Path(run).name, tracking_uri=uri)


LOGGERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
