"""The files of a config, read and merged as their libraries do: YAML, JSON, or Python as data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from hierarch.errors import SpecError
from hierarch.importing.merging import merged
from hierarch.importing.nodes import Budget, Node, Place, Unread
from hierarch.importing.statements import base_files, python_tree, read_python
from hierarch.spec import documents
from hierarch.spec.reader import MAX_BYTES, Document, Kind, Path, parse

CONFIG = Kind("config", "`MODEL` (Microsoft's) or `model` (OpenMMLab's)", "")
SUFFIXES = (".yaml", ".yml", ".json", ".py")
MAX_FILES = 64
MAX_TEXT = 2 * MAX_BYTES
"""Of all files of a config together."""


def read_config(path: str | os.PathLike[str]) -> Node:
    """The mapping of a config, with all that it inherits. Raises `SpecError`."""
    file = FilePath(path)
    if file.suffix not in SUFFIXES:
        raise SpecError(f"is no {', '.join(SUFFIXES)}", source=str(path)[:200])
    return _Files().read(file, ())


class _Files:
    """Reads a file and the files that it inherits from, in bounded time and memory."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.files = self.text = 0

    def read(self, file: FilePath, within: tuple[FilePath, ...]) -> Node:
        """One file, merged onto what it inherits from; `within` are the files that asked for it."""
        place = Place(str(file))
        try:
            real = file.resolve(strict=True)
            regular = real.is_file()
        except (OSError, RuntimeError, ValueError):
            raise place.error("no such file") from None
        if not regular:
            raise place.error("is no file")
        self.files += 1
        if self.files > MAX_FILES:
            raise place.error(f"more than {MAX_FILES} files, one inheriting from another")
        within = (*within, real)
        text = documents.read_text(file, CONFIG)
        self.text += len(text)
        if self.text > MAX_TEXT:
            raise place.error(f"more than {MAX_TEXT // 1024} kB of text; no config is so long")
        if file.suffix == ".py":
            tree = python_tree(text, str(file))
            base = self._inherited(base_files(tree, str(file)), file, within)

            def load(path: str, place: Place) -> Node:
                return self._base(path, place, file, within)

            own = read_python(tree, str(file), base, load, self.budget)
        else:
            document = parse(text, source=str(file), kind=CONFIG)
            if not isinstance(document.data, dict):
                raise place.error(f"{CONFIG.wanted}, found {type(document.data).__name__}")
            own = self._nodes(document.data, (), document)
            key = "BASE" if "BASE" in own.value else "_base_"
            base = self._inherited(own.value.pop(key, None), file, within, unique=key != "BASE")
        return merged(own, base, self.budget)

    def _nodes(self, data: Any, path: Path, document: Document) -> Node:
        """The plain data of a document as nodes."""
        place = Place(document.source, *document.place(path))
        self.budget.spend(1, place)
        if isinstance(data, dict):
            return Node({k: self._nodes(v, (*path, k), document) for k, v in data.items()}, place)
        if isinstance(data, list):
            return Node([self._nodes(v, (*path, i), document) for i, v in enumerate(data)], place)
        if isinstance(data, str) and "{{" in data:
            return Node(Unread("a template"), place)
        return Node(data, place)

    def _inherited(
        self,
        named: Node | None,
        file: FilePath,
        within: tuple[FilePath, ...],
        *,
        unique: bool = True,
    ) -> Node:
        """All that a file inherits, from one file or several; `unique`: no key from two of them."""
        base = Node({}, Place(str(file)))
        for path, place in _paths(named):
            found = self._base(path, place, file, within)
            if found.is_read() and unique:
                for key in base.value.keys() & found.value.keys():
                    both = f"{base.value[key].place} and {found.value[key].place}"
                    found.value[key] = Node(Unread(f"both {both}", "remove one"), place)
            base = merged(found, base, self.budget)
        return base

    def _base(self, path: str, place: Place, file: FilePath, within: tuple[FilePath, ...]) -> Node:
        """A file that another one names; `Unread` if it is not there."""
        target = file.parent / path
        if "::" in path or "://" in path or target.suffix not in SUFFIXES or "\0" in path:
            message = (
                f"inherits from {path[:80]!r}; name a file, {', '.join(SUFFIXES)}, by its path"
            )
            raise place.error(message)
        if not target.is_file():
            return Node(Unread(f"{path[:200]!r}, which is not there", "put the file there"), place)
        if target.resolve() in within:
            raise place.error(f"inherits from {path[:200]!r}, which inherits from this file")
        return self.read(target, within)


def _paths(named: Node | None) -> Iterator[tuple[str, Place]]:
    """The paths of a value of `_base_` or `BASE`."""
    if named is None:
        return
    items = named.value if isinstance(named.value, list) else [named]
    for item in items:
        if not isinstance(item.value, str):
            raise item.place.error("the files that it inherits from should be paths, in text")
        if item.value:
            yield item.value, item.place
