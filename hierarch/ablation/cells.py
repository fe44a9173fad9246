"""One cell of a grid: one network, trained with one seed, in a folder of its own."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarch.errors import HierarchError
from hierarch.spec.plugins import VARIABLE

if TYPE_CHECKING:
    from hierarch.train.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run, as plain data, so that any executor can send it anywhere."""

    arm: str
    seed: int
    spec: dict[str, Any]
    recipe: dict[str, Any]
    """With the seed in it."""
    data: str
    data_root: str
    folder: str
    threads: int | None
    """torch's; None for its own choice."""
    machine: dict[str, Any]
    """The fields of `hierarch.train.settings.Machine`."""
    skip_broken: bool = False
    plugins: str = field(default_factory=lambda: os.environ.get(VARIABLE, ""))
    """Files with parts, as in the environment of whoever makes the cell."""

    @property
    def name(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """What its process writes on stderr."""
        return beside(self.folder, "log")


def beside(folder: str | Path, ending: str) -> Path:
    """A file beside a run's folder, which holds the run's own files alone: `seed-0.log`."""
    return Path(folder).with_name(f"{Path(folder).name}.{ending}")


def run_cell(cell: Cell, advance: Callable[[Progress], None] | None = None) -> str:
    """Train the cell from where its folder is. Returns why it failed, or "".

    The reason also stands in `seed-SEED.failed` beside the folder, until the cell runs again.
    """
    import torch

    from hierarch.files import write_text
    from hierarch.train.running import train
    from hierarch.train.settings import Machine
    from hierarch.train.sources import open_data

    if cell.plugins:
        os.environ[VARIABLE] = cell.plugins
    told = beside(cell.folder, "failed")
    told.unlink(missing_ok=True)
    if cell.threads:
        torch.set_num_threads(cell.threads)
    try:
        with redirect_stdout(sys.stderr):
            train(
                cell.spec,
                open_data(cell.data, root=Path(cell.data_root)),
                recipe=cell.recipe,
                run=cell.folder,
                resume=True,
                machine=Machine(**cell.machine),
                skip_broken=cell.skip_broken,
                command=["hierarch", "ablate", cell.name],
                advance=advance,
            )
    except HierarchError as error:
        why = str(error)
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    else:
        return ""
    told.parent.mkdir(parents=True, exist_ok=True)
    write_text(told, f"{why}\n")
    return why


def main() -> None:
    """The program of a process for one cell: a cell as a line of JSON on stdin, and on stdout a
    line of JSON for each step done, and one at the end. It ends with stdin, so that it does not
    outlive the process that started it, however that ends."""
    cell = Cell(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)

    def tell(**fields: Any) -> None:
        out.write(json.dumps(fields) + "\n")

    def advance(at: Progress) -> None:
        tell(done=at.step, total=at.steps, speed=at.images_per_s)

    tell(why=run_cell(cell, advance))


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


def as_json(cell: Cell) -> str:
    """What `main` reads."""
    return json.dumps(asdict(cell)) + "\n"


if __name__ == "__main__":
    main()
