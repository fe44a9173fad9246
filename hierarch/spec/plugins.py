"""Python files with parts of one's own, which a command and every process that it starts know.

The environment variable HIERARCH_PLUGINS names them, separated as in PATH; `hierarch --plugin FILE`
sets it. They are run: name only files that you trust. A package has entry points instead.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from hierarch.errors import SpecError

VARIABLE = "HIERARCH_PLUGINS"

_loaded: set[str] = set()


def add_plugins(files: list[Path]) -> None:
    """Name files for this process and for those that it starts."""
    before = os.environ.get(VARIABLE, "").split(os.pathsep)
    paths = [*filter(None, before), *(str(file.resolve()) for file in files)]
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(paths))


def load_plugins() -> None:
    """Run each file that is named, once. Raises `SpecError` for one that fails."""
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if path not in _loaded:
            _loaded.add(path)
            try:
                _run(Path(path))
            except Exception as error:  # a user's code may fail in any way
                _loaded.discard(path)
                reason = f"{type(error).__name__}: {error}"
                raise SpecError(f"this plugin cannot be loaded: {reason}", source=path) from error


def _run(path: Path) -> None:
    found = importlib.util.spec_from_file_location(f"hierarch_plugin_{path.stem}", path)
    if found is None or found.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[module.__name__] = module
    found.loader.exec_module(module)
