"""The progress bar of long commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY = 1.0
"""Seconds of work before a bar appears."""


@contextmanager
def progress(label: str) -> Iterator[Callable[..., None]]:
    """Yields a function to call with (steps done, steps in all), and a text to stand beside them;
    it draws a bar on stderr, with the time that is left.

    Nothing is drawn in the first second, nor where stderr is not a terminal. The bar is drawn in
    the calling thread, never by one in the background, which would disturb timings.
    """
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    bar = Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[beside]}"),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,  # else stop() would put back a stdout that the caller redirected
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
