"""Reading and writing specs: presets, files, text and mappings."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from hierarch.errors import SpecError
from hierarch.files import write_text
from hierarch.spec import documents
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.reader import SPEC, Document, parse

Source = BackboneSpec | str | os.PathLike[str] | Mapping[str, Any]


def load(source: Source) -> BackboneSpec:
    """Read a spec from a YAML file's path, a preset's name ("swin_tiny"), or a mapping.

    Raises `SpecError`, with file, line, column and the path into the spec, for an invalid one.

    >>> load("swin_tiny").stages[2].depth
    6
    """
    if isinstance(source, BackboneSpec):
        return source
    return validate(read(source))


def of_images(spec: BackboneSpec) -> BackboneSpec:
    """The same spec. Raises `SpecError` if it is a network of videos, volumes or signals.

    >>> of_images(load("swin_tiny")).name
    'swin_tiny'
    """
    if spec.axes != 2:
        raise SpecError(f"{spec.name} has {spec.axes} axes, and this is for networks of images")
    return spec


def loads(text: str, *, source: str = "<text>") -> BackboneSpec:
    """Read a spec from YAML text. `source` is its name in errors. Raises `SpecError`.

    >>> loads("{mixer: pooling, stages: [{dim: 64, depth: 2}]}").stages[0].depth
    2
    """
    return validate(parse(text, source=source))


def read(source: Source) -> Document:
    """The plain data of a source, with line and column of each value, not yet validated."""
    if isinstance(source, BackboneSpec):
        return Document(source.to_data())
    if isinstance(source, Mapping):
        return Document(dict(source))
    if isinstance(source, str | os.PathLike):
        return documents.read(source, SPEC)
    kind = type(source).__name__
    raise SpecError(f"a spec is a path, a preset's name or a mapping, not {kind}")


def find(source: str | os.PathLike[str]) -> Path:
    """The file of a path or of a preset's name. Raises `SpecError` where there is none."""
    return documents.find(source, SPEC)


def presets(*, axes: int | None = None) -> list[str]:
    """The names of the specs that come with the library, sorted; or of those whose images have so
    many axes.

    >>> "swin_tiny" in presets(), "swin_tiny" in presets(axes=3)
    (True, False)
    """
    names = documents.presets(SPEC)
    return names if axes is None else [name for name in names if load(name).axes == axes]


def validate(document: Document) -> BackboneSpec:
    """The spec that a document holds. Raises `SpecError` with the place of every mistake."""
    return documents.validate(document, BackboneSpec, SPEC)


def override(spec: BackboneSpec, fields: Mapping[str, Any]) -> BackboneSpec:
    """The spec with some top-level fields replaced. Raises `SpecError`."""
    return validate(Document({**dict(spec), **fields})) if fields else spec


def with_classes(spec: BackboneSpec, classes: int) -> BackboneSpec:
    """The spec with a classifier of so many classes."""
    if spec.head and spec.head.num_classes == classes:
        return spec
    head = spec.head.to_data() if spec.head else {}
    return override(spec, {"head": head | {"num_classes": classes}, "out_indices": None})


def dump(spec: BackboneSpec, path: str | os.PathLike[str] | None = None) -> str:
    """Write a spec as YAML, to a file where a path is given; `load` reads an equal spec from it.

    Fields at their default are left out. Returns the text.

    >>> loads(dump(load("swin_tiny"))) == load("swin_tiny")
    True
    """
    text = to_yaml(flow(spec.to_data()))
    if path is not None:
        write_text(path, text)
    return text


def round_trip() -> YAML:
    """A YAML reader and writer that keeps comments, order and quotes."""
    yaml = YAML()
    yaml.width = 10_000  # lines are not wrapped
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def to_yaml(data: Any) -> str:
    """Data as YAML text, with the comments of data that `round_trip` read."""
    stream = io.StringIO()
    round_trip().dump(data, stream)
    return stream.getvalue().rstrip("\n") + "\n"


def flow(data: Mapping[str, Any]) -> CommentedMap:
    """Data in the presets' layout: one line per field, and per mapping in a list."""
    lines = CommentedMap()
    for key, value in data.items():
        in_lines = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
        lines[key] = CommentedSeq(map(in_line, value)) if in_lines else in_line(value)
    return lines


def in_line(value: Any) -> Any:
    """A mapping or a list that is written in one line, {a: 1} or [1, 2]; other values unchanged."""
    if isinstance(value, Mapping):
        mapping = CommentedMap({key: in_line(item) for key, item in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq(map(in_line, value))
        sequence.fa.set_flow_style()
        return sequence
    return value
