"""Documents of any kind, specs and recipes: found by path or name, read, and held to a model."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hierarch.errors import Problem, SpecError
from hierarch.spec import shipped
from hierarch.spec.base import Spec, nearest, shown
from hierarch.spec.reader import KEY, MAX_BYTES, Document, Kind, parse, written

Model = TypeVar("Model", bound=Spec)


def read(source: str | os.PathLike[str], kind: Kind) -> Document:
    """A file, or one of the library's own by name, as plain data. Raises `SpecError`."""
    path = find(source, kind)
    if not path.is_relative_to(shipped.folder(kind.folder)):
        return parse(read_text(path, kind), source=str(path), kind=kind)
    parsed = _parsed(path, kind, path.stat().st_mtime_ns)
    return Document(copy.deepcopy(parsed.data), parsed.places, parsed.source)


@functools.cache
def _parsed(path: Path, kind: Kind, changed: int) -> Document:
    """One of the library's own files, parsed once: that takes most of the time of reading it."""
    return parse(read_text(path, kind), source=str(path), kind=kind)


def find(source: str | os.PathLike[str], kind: Kind) -> Path:
    """The file of a path or of a preset's name. Raises `SpecError` where there is none."""
    name = os.fspath(source)
    if "\0" in name:
        raise SpecError(f"no such file: {name[:80]!r}")
    path = Path(name)
    try:
        if not path.is_file() and isinstance(source, str) and (preset := _preset(name, kind)):
            return shipped.folder(kind.folder) / f"{preset}.yaml"
        if path.exists():
            return path
    except OSError as error:
        raise SpecError(f"no such file: {name[:80]!r} ({error.strerror})") from None
    if path.suffix in (".yaml", ".yml") and not _preset(path.stem, kind):
        raise SpecError("no such file", source=name)
    shown = name if len(name) < 80 else name[:80] + "..."
    known = [preset.rpartition("/")[2] for preset in presets(kind)]
    families = {preset.partition("/")[0] + "/*" * ("/" in preset) for preset in presets(kind)}
    tail = nearest(path.stem, known, all_of=families)
    raise SpecError(f"no such file or preset: {shown!r}, {tail}")


def presets(kind: Kind) -> list[str]:
    """The names of the documents that come with the library, sorted."""
    return list(shipped.documents(kind.folder))


def _preset(name: str, kind: Kind) -> str | None:
    """The preset of a name, given with its folder or without."""
    every = presets(kind)
    return next((preset for preset in every if name in (preset, preset.split("/")[-1])), None)


def read_text(path: Path, kind: Kind) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.object[error.start]:#04x} at {error.start})"
        raise SpecError(message, source=str(path)) from None
    except IsADirectoryError:
        message = f"is a directory; a {kind.word} is a YAML file"
        raise SpecError(message, source=str(path)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", source=str(path)) from None


def validate(document: Document, model: type[Model], kind: Kind) -> Model:
    """What a document holds. Raises `SpecError` with the place of every mistake."""
    if not isinstance(document.data, Mapping):
        line, column = document.place(())
        message = f"{kind.wanted}, found {type(document.data).__name__}"
        raise SpecError([Problem(message, "", line, column)], source=document.source)
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = [_problem(details, document) for details in error.errors() if _is_real(details)]
        # two mixers of one cycle may say the same of their stage's width
        raise SpecError(list(dict.fromkeys(problems)), source=document.source) from None


def _is_real(details: Mapping[str, Any]) -> bool:
    """pydantic counts only the valid entries of a list, and so calls a list of wrong ones short."""
    if details["type"] != "too_short":
        return True
    found = details["input"]
    return not isinstance(found, Sized) or len(found) < details["ctx"]["min_length"]


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
    """One validation error in words, at its place in the text."""
    data, path = document.data, []
    for key in details["loc"]:
        if isinstance(data, str):  # a part's name alone stands for a mapping with its type
            break
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            # entry 0 of what is written as one mapping; a key that is missing
            if isinstance(key, int):
                continue
            data = None
        path.append(key)
    found = details["input"]
    message = _MESSAGES.get(
        details["type"], str(details["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    )
    message = (
        message.format_map(details.get("ctx", {})) if details["type"] in _MESSAGES else message
    )
    if details["type"] == "missing" and isinstance(data, str):
        message = f"{shown(data)} needs {details['loc'][-1]}; write it as a mapping"
    elif found is not ... and details["type"] != "missing":
        message = f"{message}, got {shown(found)}"
    place = document.place((*path, KEY) if message.startswith("unknown key") else tuple(path))
    return Problem(message, written(tuple(path)), *place)
