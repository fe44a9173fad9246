"""The progress bar of long commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY = 1.0
"""Seconds until the bar is drawn."""


@contextmanager
def progress(label: str) -> Iterator[Callable[..., None]]:
    """Yields a function of (steps done, all steps), and of a text to show beside them, that draws a
    progress bar on stderr.

    Nothing is drawn in the first second, or if stderr is not a terminal. The bar is drawn in the
    calling thread, since a background thread would disturb timings.
    """
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    bar = Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[beside]}"),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,  # or stop() would undo the caller's redirection of stdout
        redirect_stderr=False,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(label, total=None, beside="")
    begun = time.monotonic()

    def advance(done: int, total: int, beside: str = "") -> None:
        bar.update(task, completed=done, total=total, beside=beside)
        if time.monotonic() - begun > DELAY:
            bar.start()
            bar.refresh()

    try:
        yield advance
    finally:
        bar.stop()
