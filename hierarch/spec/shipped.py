"""The files that come with the library: presets, recipes, and the JSON Schema of each kind.

Only names and plain data, without pydantic: shell completion asks for them at each key.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import hierarch

FAMILIES = {
    "swin": "swin_tiny",
    "mixer": "swin_mixer_tiny_d24",
    "swin_v2": "swin_v2/swin_v2_tiny_window8_256",
    "convnext": "convnext/convnext_tiny",
    "poolformer": "metaformer/poolformer_s12",
}
"""The preset that a new spec of a family is made from; all of them are linear."""


@functools.cache
def folder(name: str) -> Path:
    """The folder of this name ("specs", "recipes"): in the installed package, or in a checkout."""
    package = Path(hierarch.__file__).parent
    installed, checkout = package / name, package.parent / name
    return installed if installed.is_dir() else checkout


@functools.cache
def documents(name: str) -> tuple[str, ...]:
    """The names of a folder's documents, sorted: `swin_tiny`, `vit/vit_tiny_patch16`."""
    files = (file.relative_to(folder(name)) for file in folder(name).rglob("*.yaml"))
    return tuple(sorted(file.with_suffix("").as_posix() for file in files))


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a folder's documents, with the library's own parts."""
    read: dict[str, Any] = json.loads((folder(name) / "schema.json").read_text("utf-8"))
    return read
