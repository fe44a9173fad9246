"""Reading and writing specs: presets, files, text and mappings."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

import hierarch
from hierarch.errors import Problem, SpecError
from hierarch.files import write_text
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import nearest, shown
from hierarch.spec.reader import KEY, MAX_BYTES, Document, parse, written

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


def loads(text: str, *, source: str = "<text>") -> BackboneSpec:
    """Read a spec from YAML text. `source` is its name in errors. Raises `SpecError`."""
    return validate(parse(text, source=source))


def read(source: Source) -> Document:
    """The plain data of a source, with line and column of each value, not yet validated."""
    if isinstance(source, BackboneSpec):
        return Document(source.to_data())
    if isinstance(source, Mapping):
        return Document(dict(source))
    if isinstance(source, str | os.PathLike):
        path = find(source)
        return parse(_text(path), source=str(path))
    kind = type(source).__name__
    raise SpecError(f"a spec is a path, a preset's name or a mapping, not {kind}")


def find(source: str | os.PathLike[str]) -> Path:
    """The file of a path or of a preset's name. Raises `SpecError` if there is none."""
    name = os.fspath(source)
    if "\0" in name:
        raise SpecError(f"no such file: {name[:80]!r}")
    path = Path(name)
    try:
        if not path.is_file() and isinstance(source, str) and (preset := _preset(name)):
            return _presets_folder() / f"{preset}.yaml"
        if path.exists():
            return path
    except OSError as error:
        raise SpecError(f"no such file: {name[:80]!r} ({error.strerror})") from None
    if path.suffix in (".yaml", ".yml") and not _preset(path.stem):
        raise SpecError("no such file", source=name)
    shown = name if len(name) < 80 else name[:80] + "..."
    known = [preset.rpartition("/")[2] for preset in presets()]
    families = {preset.partition("/")[0] + "/*" * ("/" in preset) for preset in presets()}
    tail = nearest(path.stem, known, all_of=families)
    raise SpecError(f"no such file or preset: {shown!r}, {tail}")


def _preset(name: str) -> str | None:
    """The preset with this name, with or without its folder; None if there is none."""
    return next((preset for preset in presets() if name in (preset, preset.split("/")[-1])), None)


def presets() -> list[str]:
    """The names of the specs in the library, sorted."""
    folder = _presets_folder()
    files = folder.rglob("*.yaml")
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in files)


@functools.cache
def _presets_folder() -> Path:
    package = Path(hierarch.__file__).parent
    installed, checkout = package / "specs", package.parent / "specs"
    return installed if installed.is_dir() else checkout


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.object[error.start]:#04x} at {error.start})"
        raise SpecError(message, source=str(path)) from None
    except IsADirectoryError:
        raise SpecError("is a directory; a spec is a YAML file", source=str(path)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", source=str(path)) from None


def validate(document: Document) -> BackboneSpec:
    """The spec of a document. Raises `SpecError` with the place of every mistake."""
    if not isinstance(document.data, Mapping):
        got = type(document.data).__name__
        line, column = document.place(())
        message = f"a spec is a mapping with at least `stages`, found {got}"
        raise SpecError([Problem(message, "", line, column)], source=document.source)
    try:
        return BackboneSpec.model_validate(document.data)
    except ValidationError as error:
        problems = [_problem(details, document) for details in error.errors() if _is_real(details)]
        # two mixers of one cycle may raise the same error for their stage's width
        raise SpecError(list(dict.fromkeys(problems)), source=document.source) from None


def _is_real(details: Mapping[str, Any]) -> bool:
    """False for pydantic's "too short" of a list that is only short of valid entries."""
    if details["type"] != "too_short":
        return True
    entries = details["input"]
    return not isinstance(entries, Sized) or len(entries) < details["ctx"]["min_length"]


_MESSAGES = {
    "missing": "is missing",
    "model_type": "should be a mapping",
    "string_type": "should be text",
    "string_unicode": "should be text, and half of a surrogate pair is none",
    "string_too_short": "should have at least {min_length} character",
    "string_too_long": "should have at most {max_length} characters",
    "tuple_type": "should be a list",
    "too_short": "should have at least {min_length} entry",
    "too_long": "should have at most {max_length} entries",
}


def _problem(details: Mapping[str, Any], document: Document) -> Problem:
    """A validation error as a `Problem`, with its place in the text."""
    data, path = document.data, []
    for key in details["loc"]:
        if isinstance(data, str):  # a part's name, short for a mapping with its type
            break
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            # a missing key, or entry 0 of a list that is written as a single mapping
            if isinstance(key, int):
                continue
            data = None
        path.append(key)
    value = details["input"]
    message = _MESSAGES.get(
        details["type"], str(details["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    )
    message = (
        message.format_map(details.get("ctx", {})) if details["type"] in _MESSAGES else message
    )
    if details["type"] == "missing" and isinstance(data, str):
        message = f"{shown(data)} needs {details['loc'][-1]}; write it as a mapping"
    elif value is not ... and details["type"] != "missing":
        message = f"{message}, got {shown(value)}"
    place = document.place((*path, KEY) if message.startswith("unknown key") else tuple(path))
    return Problem(message, written(tuple(path)), *place)


def override(spec: BackboneSpec, fields: Mapping[str, Any]) -> BackboneSpec:
    """The spec with some top-level fields replaced. Raises `SpecError`."""
    return validate(Document({**dict(spec), **fields})) if fields else spec


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
    """Data in the presets' layout: one line per field, and per entry of a list."""
    lines = CommentedMap()
    for key, value in data.items():
        lines[key] = (
            CommentedSeq(map(in_line, value)) if isinstance(value, list) else in_line(value)
        )
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
