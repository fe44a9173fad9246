"""A run's folder: what it was, how far it is, and what came of it. Every file is whole, always.

spec.yaml recipe.yaml   what is trained, and how
run.json                command, data, versions, git state, seed, machine
metrics.csv             a row for every `log_steps` steps and for every evaluation
checkpoint.pt           where the run goes on
best.safetensors        the weights of the best evaluation
model.safetensors       the final weights; of the average, where the recipe has one
results.json            the final figures: the run is finished
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from hierarch.errors import TrainError
from hierarch.files import write_text, writing

COLUMNS = (
    *("step", "epoch", "lr", "loss", "grad_norm", "images_per_s"),
    *("val_loss", "val_top1", "val_top5"),
)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.spec = self.path / "spec.yaml"
        self.recipe = self.path / "recipe.yaml"
        self.about = self.path / "run.json"
        self.metrics = self.path / "metrics.csv"
        self.checkpoint = self.path / "checkpoint.pt"
        self.best = self.path / "best.safetensors"
        self.model = self.path / "model.safetensors"
        self.results = self.path / "results.json"

    @property
    def begun(self) -> bool:
        return self.about.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While this is entered no other run writes here. The system ends a killed run's lock.

        Raises `TrainError` where another run does.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise TrainError(
                f"{self.path}: another run is writing here; give another --run"
            ) from None
        except OSError as error:
            raise TrainError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            self._remove_unfinished()
            yield
        finally:
            lock.release()

    def _remove_unfinished(self) -> None:
        """Files that a killed run was writing, none of which was ever in place."""
        for name in ("*.yaml", "*.json", "*.csv", "*.pt", "*.safetensors"):
            for file in self.path.glob(f".{name}.*"):
                file.unlink()

    def begin(self, *, spec: str, recipe: str, about: Mapping[str, Any]) -> None:
        """Write what the run is; run.json last, which says that all of it is there. What an earlier
        one left that never came to a checkpoint is replaced."""
        self.best.unlink(missing_ok=True)
        self._write(self.spec, spec)
        self._write(self.recipe, recipe)
        self._write(self.metrics, ",".join(COLUMNS) + "\n")
        self._write(self.about, json.dumps(about, indent=2, ensure_ascii=False) + "\n")

    def read_about(self) -> dict[str, Any]:
        """The contents of run.json."""
        about: dict[str, Any] = json.loads(self.about.read_text("utf-8"))
        return about

    def save(self, state: Mapping[str, Any], *, kept: str) -> None:
        """Write the checkpoint. `kept` says in the error what there is, should the disk be full."""
        with self._telling("checkpoint", kept), writing(self.checkpoint) as temporary:
            save_whole(state, temporary)

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, read without running code; None where there is none yet."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        return state

    def save_weights(self, path: Path, weights: Mapping[str, torch.Tensor], *, kept: str) -> None:
        """Write weights as safetensors."""
        from safetensors.torch import save

        with self._telling("weights", kept), writing(path) as temporary:
            whole = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            temporary.write_bytes(save(whole))

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the results."""
        self._write(self.results, json.dumps(results, indent=2) + "\n")

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.csv, in one write."""
        stream = io.StringIO()
        csv.DictWriter(stream, COLUMNS, lineterminator="\n").writerow(row)
        with (
            self._telling("metrics", "all before it"),
            self.metrics.open("ab", buffering=0) as file,
        ):
            file.write(stream.getvalue().encode())

    def rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv that are whole."""
        text = self.metrics.read_text("utf-8") if self.metrics.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        return list(csv.DictReader(io.StringIO(whole)))

    def rewind(self, step: int) -> None:
        """Drop the rows of steps after `step`, which are done again."""
        kept = [row for row in self.rows() if int(row["step"]) <= step]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        self._write(self.metrics, stream.getvalue())

    def _write(self, path: Path, text: str) -> None:
        with self._telling(path.name, "all before it"):
            write_text(path, text)

    @contextmanager
    def _telling(self, what: str, kept: str) -> Iterator[None]:
        """A full disk, in words."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise TrainError(
                f"{self.path}: the {what} cannot be written: {reason}; kept: {kept}. Make room and "
                "give --resume"
            ) from None


def save_whole(state: Mapping[str, Any], path: Path) -> None:
    """torch.save, and wait until the disk has it."""
    with path.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())


def leftovers(folder: Path) -> list[Path]:
    """Files in a run's folder that are none of its own."""
    own = {
        ".lock",
        "tensorboard",
        "wandb",
        *(path.name for path in vars(RunFolder(folder)).values() if path != folder),
    }
    return [file for file in folder.iterdir() if file.name not in own]
