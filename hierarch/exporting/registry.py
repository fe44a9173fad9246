"""The registry of targets: the kinds of files that a network is exported to, by name.

A built-in target is one module in `hierarch/exporting/targets/` with a `TARGET`, named after it;
another package adds its own by an entry point in the group `hierarch.targets`, whose value is a
`Target`. Both are imported when they are asked for. This module imports no torch, so that `--help`
can list the names.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from hierarch.errors import ExportError

if TYPE_CHECKING:
    from hierarch.exporting.target import Target

GROUP = "hierarch.targets"
PACKAGE = "hierarch.exporting.targets"


def target_names() -> list[str]:
    """The names of all targets, sorted: what `to` may be. Imports none of them.

    >>> target_names()
    ['executorch', 'onnx', 'openvino', 'torch-export']
    """
    return sorted({*_builtin(), *(entry.name for entry in entry_points(group=GROUP))})


def get_target(name: str) -> Target:
    """The target of this name. Raises `ExportError` if there is none, or none that can be
    loaded."""
    if name in _builtin():
        builtin: Target = importlib.import_module(f"{PACKAGE}.{name.replace('-', '_')}").TARGET
        return builtin
    found = [*entry_points(group=GROUP, name=name)]
    if not found:
        raise ExportError(f"unknown target {name[:80]!r}; known: {', '.join(target_names())}")
    from hierarch.exporting.target import Target

    where = f"target {name!r}, entry point {found[0].value!r}:"
    try:
        value = found[0].load()
    except Exception as error:  # another package's code may raise anything
        raise ExportError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(value, Target):
        raise ExportError(f"{where} is no Target")
    return value


def _builtin() -> list[str]:
    modules = pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)
    return [module.name.replace("_", "-") for module in modules]
