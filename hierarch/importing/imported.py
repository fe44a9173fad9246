"""`import_config`: the spec of another library's config."""

from __future__ import annotations

import functools
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

from hierarch.errors import SpecError
from hierarch.importing import microsoft, openmmlab
from hierarch.importing.files import CONFIG, read_config
from hierarch.importing.nodes import Section, left_out
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.difference import difference
from hierarch.spec.load import dump, find, load, loads, override, presets

MAX_LISTED = 40
"""The most keys that are named as left out."""


@dataclass(frozen=True)
class Imported:
    """The spec of a config, and what the config says that a spec does not.

    >>> from pathlib import Path
    >>> _ = Path("tiny.yaml").write_text("MODEL: {TYPE: swin, NAME: tiny, DROP_PATH_RATE: 0.3}")
    >>> import_config("tiny.yaml").spec.drop_path_rate
    0.3
    """

    spec: BackboneSpec
    source: str
    """The file."""
    library: str
    """Whose config it is."""
    preset: str
    """The preset with the same blocks and mixers that is nearest; "" if there is none."""
    differences: tuple[str, ...]
    """What is another in the spec than in that preset, the name apart; empty if nothing is."""
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    """Keys of the config that do not describe the network."""

    def yaml(self) -> str:
        """The spec as YAML, under comments that say where it is from and what is left out."""
        lines = [f"{Path(self.source).name}, a config of {self.library}", *self.notes]
        if self.preset and not self.differences:
            lines.append(f"equal to the preset {self.preset}")
        elif self.preset:
            lines.append(f"the preset {self.preset}, but {'; '.join(self.differences)}")
        if self.left_out:
            listed = ", ".join(self.left_out[:MAX_LISTED])
            rest = len(self.left_out) - MAX_LISTED
            more = f", and {rest} more" if rest > 0 else ""
            lines.append(f"left out, since no spec says it: {listed}{more}")
        return "".join(map(_comment, lines)) + dump(self.spec)


def import_config(path: str | os.PathLike[str]) -> Imported:
    """Read the network of another library's config as a spec.

    The config is Microsoft's YAML of Swin, Swin V2 or Swin-MLP, or a config of mmdetection,
    mmsegmentation or mmpretrain, in Python, YAML or JSON, with `SwinTransformer` or
    `SwinTransformerV2` as its backbone. Files that it inherits from are read with it. Nothing runs:
    Python files are parsed, and a value that takes more than literals, names, `dict(...)` and
    arithmetic is an error if the network depends on it.

    Raises `SpecError`, with file and line, for a config that cannot be read, and for one that says
    what a spec cannot.

    >>> from pathlib import Path
    >>> _ = Path("tiny.yaml").write_text("MODEL: {TYPE: swin, NAME: tiny, SWIN: {EMBED_DIM: 96}}")
    >>> import_config("tiny.yaml").preset
    'swin_tiny'
    """
    root = read_config(path)
    config, source = Section(root), str(path)
    if "MODEL" in config or "DATA" in config:
        reader, library = microsoft.swin, "microsoft/Swin-Transformer"
    elif config.find("model") is not None:
        reader, library = openmmlab.swin, "OpenMMLab"
    else:
        raise SpecError(CONFIG.wanted, source=source)
    network, notes = reader(root, Path(path).stem)
    try:
        spec = load(network.data())
    except SpecError as error:
        raise SpecError(f"no spec describes its network: {error}", source=source) from None
    preset, differences = _nearest(spec)
    return Imported(
        spec=spec,
        source=source,
        library=library,
        preset=preset,
        differences=differences,
        notes=tuple(notes),
        left_out=tuple(map(_named, left_out(root))),
    )


def _nearest(spec: BackboneSpec) -> tuple[str, tuple[str, ...]]:
    """The preset that differs least, of those with the same blocks and mixers, and in what."""
    found = {}
    types = frozenset(mixer.type for stage in spec.plan() for mixer in stage.mixers)
    for name in presets():
        preset = _preset(name, types)
        if preset is not None and _outline(preset) == _outline(spec):
            found[name] = difference(override(preset, {"name": spec.name}), spec)
    nearest = min(found, key=lambda name: (sum(map(len, found[name])), len(name)), default="")
    return nearest.rpartition("/")[2], found.get(nearest, ())


@functools.cache
def _preset(name: str, types: frozenset[str]) -> BackboneSpec | None:
    """A preset, None if its text does not name these mixers, which is sooner seen than loaded."""
    text = find(name).read_text("utf-8")
    return loads(text) if all(kind in text for kind in types) else None


def _outline(spec: BackboneSpec) -> list[tuple[int, tuple[str, ...]]]:
    """The width of each stage, and the types of its blocks' mixers."""
    return [(stage.dim, tuple(mixer.type for mixer in stage.mixers)) for stage in spec.plan()]


def _named(key: str) -> str:
    """A key of the config as a word of a comment."""
    return key[:80] if key.isprintable() and key.strip() else repr(key[:80])


def _comment(line: str) -> str:
    """A line as comments, of up to 100 columns; no part of it is on a line of its own without #."""
    line = "".join(c if c.isprintable() else "?" for c in line)
    wrapped = textwrap.wrap(line, 98, break_on_hyphens=False) or [""]
    return "".join(f"# {part}\n" for part in wrapped)
