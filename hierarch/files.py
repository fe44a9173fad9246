"""Atomic writes: a file is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to a file atomically, see `writing`; to a pipe or a device directly."""
    target = Path(path)
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary file in the folder of `path`, and moves it to `path` at the end.

    So no reader sees a part of it. If `path` is a link, its target is replaced. The mode of an
    existing file is kept.
    """
    target = Path(path).resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _move(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing_with_others(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path of the same name in a temporary folder, and moves all files of that folder to
    the folder of `path` at the end: for formats of several files, of which `path` is the first.

    As `writing` does, but `path` itself is moved last, and an older file of its name is removed
    before the others are replaced: so it is never beside others than its own.
    """
    target = Path(path).resolve()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        yield Path(folder, target.name)
        others = [file for file in Path(folder).iterdir() if file.name != target.name]
        if others:
            target.unlink(missing_ok=True)
        for file in others:
            _move(file, target.with_name(file.name))
        _move(Path(folder, target.name), target)


def _move(temporary: Path, target: Path) -> None:
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    os.chmod(temporary, mode)
    os.replace(temporary, target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
