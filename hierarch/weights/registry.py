"""The registry of weight layouts, by library.

A built-in library is one module in `hierarch/weights/layouts/`, named after the library; another
package adds its own by an entry point in the group `hierarch.layouts`, named after the library,
whose value is a `Layout` or a sequence of them. Both are imported when they are first asked for.
This module imports no torch, so that `--help` can list the libraries.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from hierarch.errors import WeightsError

if TYPE_CHECKING:
    from hierarch.weights.layout import Layout

GROUP = "hierarch.layouts"

_registered: dict[str, dict[str, Layout]] = {}
"""Library -> network -> layout."""


def register_layout(layout: Layout) -> Layout:
    """Add a layout, which is then recognized, loaded, saved and listed like a built-in one.

    Raises `TypeError` if another layout has the same library and network.

    >>> from hierarch.weights.layout import Layout
    >>> from hierarch.weights.names import rows
    >>> table = rows("stem", "patchify", "proj.*")
    >>> knows = lambda names: "patchify.proj.weight" in names
    >>> _ = register_layout(Layout(library="ours", network="swin", rows=table, recognizes=knows))
    >>> "ours" in libraries()
    True
    """
    networks = _registered.setdefault(layout.library, {})
    if networks.setdefault(layout.network, layout) is not layout:
        raise TypeError(f"layout {layout.name!r} is already registered")
    return layout


def libraries() -> list[str]:
    """The names of all libraries, sorted: what `layout` may be. Imports none of them.

    >>> {"timm", "torchvision"} <= {*libraries()}
    True
    """
    plugins = {entry.name for entry in entry_points(group=GROUP)}
    return sorted({*_builtin(), *plugins, *_registered})


def get_layouts(name: str | None = None) -> list[Layout]:
    """A library's layouts ("timm"), one of them ("timm:swin"), or by default all.

    Raises `WeightsError` for an unknown name, and for a package whose layouts cannot be loaded.
    """
    if name is None:
        return [layout for library in libraries() for layout in _load(library)]
    found = _load(name.partition(":")[0])
    if ":" in name:
        found = [layout for layout in found if layout.name == name]
    if not found:
        raise WeightsError(f"unknown layout {name[:80]!r}; known: {', '.join(libraries())}")
    return found


def _load(library: str) -> list[Layout]:
    if library in _builtin():
        importlib.import_module(f"hierarch.weights.layouts.{library}")
    elif library not in _registered:
        for entry in entry_points(group=GROUP, name=library):
            _load_plugin(entry)
    return list(_registered.get(library, {}).values())


def _load_plugin(entry: EntryPoint) -> None:
    from hierarch.weights.layout import Layout

    where = f"layout {entry.name!r}, entry point {entry.value!r}:"
    try:
        value = entry.load()
    except Exception as error:  # another package's code may raise anything
        raise WeightsError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    layouts = [value] if isinstance(value, Layout) else value
    if not isinstance(layouts, list | tuple) or not layouts:
        raise WeightsError(f"{where} is no Layout, and no sequence of Layouts")
    for layout in layouts:
        if not isinstance(layout, Layout) or layout.library != entry.name:
            raise WeightsError(f"{where} is no Layout of the library {entry.name!r}")
        register_layout(layout)


def _builtin() -> list[str]:
    package = importlib.import_module("hierarch.weights.layouts")
    return [module.name for module in pkgutil.iter_modules(package.__path__)]
