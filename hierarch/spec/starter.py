"""A commented spec to start from: a preset, with what the schema says of each field it uses.

Nothing of it is written here: the values are the preset's, and the comments are the language's own.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hierarch.errors import SpecError
from hierarch.spec import documents, shipped
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import nearest, shown
from hierarch.spec.grid import Sides
from hierarch.spec.load import flow, to_yaml
from hierarch.spec.reader import SPEC
from hierarch.spec.shipped import FAMILIES
from hierarch.spec.vocabulary import Place

WIDTH = 100
"""Columns of a comment."""
ALSO = ("mlp_ratio", "drop_path_rate")
"""Fields that a starter has at their default, where the preset does not set them."""


def starter(name: str, *, family: str = "swin", input_size: int | Sides | None = None) -> str:
    """The YAML of a network of a family, called `name`, with a comment on each field.

    `input_size` is the image size in pixels; the preset's by default. Raises `SpecError` for an
    unknown family, and for a name or a size that a spec cannot have.
    """
    if family not in FAMILIES:
        raise SpecError(f"unknown family {shown(family)}, {nearest(family, FAMILIES)}")
    path = documents.find(FAMILIES[family], SPEC)
    data = documents.read(path, SPEC).data | {"name": _checked("name", name)}
    if input_size is not None:
        size = _checked("input_size", input_size)
        data["input_size"] = list(size) if isinstance(size, tuple) else size
    schema = shipped.schema(SPEC.folder)
    root = Place(schema, (schema,), data)
    fields = root.fields()
    for key in ALSO:
        data.setdefault(key, fields[key].values()[0])
    origin = f"Made from {FAMILIES[family]}: {_origin(path.read_text('utf-8'))}"
    lines = [f"# {origin}", "# Other mixers: hierarch mixers. All fields: hierarch schema."]
    told = {*data}
    for key in filter(data.__contains__, fields):
        lines += _comments(root.fields()[key], told)
        lines += to_yaml(flow({key: data[key]})).splitlines()
    return "\n".join(lines) + "\n"


def _checked(field: str, value: Any) -> Any:
    """A value that a field of the spec may have."""
    info = BackboneSpec.model_fields[field]
    try:
        return TypeAdapter(info.rebuild_annotation()).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input ").removeprefix("String ")
        raise SpecError(f"{field}: {reason}, got {shown(value)}") from None


def _origin(text: str) -> str:
    """What a preset's first comment says: the network and its paper."""
    comments = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    return next(line for line in comments if not line.startswith("yaml-language-server"))


def _comments(place: Place, told: set[str]) -> Iterator[str]:
    """What a field is, and of a mapping what each of its own fields is. `told` are sentences, and
    names of fields, that are said elsewhere."""
    yield from _wrapped(_first_sentence(place.description))
    used = place.data if isinstance(place.data, list) else [place.data]
    keys = dict.fromkeys(key for entry in used if isinstance(entry, Mapping) for key in entry)
    inner = place.fields()
    for key in keys:
        about = _first_sentence(inner[key].description)
        if told.isdisjoint((key, about)) and key != "type":
            told.add(about)
            yield from _wrapped(about, key)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.) ", text)[0]


def _wrapped(text: str, key: str = "") -> list[str]:
    """A comment of as many lines as it takes; the fields of a mapping stand further in."""
    first, further = (f"#   {key}: ", "#     ") if key else ("# ", "# ")
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=further, break_on_hyphens=False
    )
