"""The registry of parts, by kind and name (`type` in YAML).

A built-in part is one file with the part's name, `mixers/window_attention.py`, which is imported
when the part is first used. A part of another package is found by its entry point, or is registered
when its module is imported; one in a file of its own, see `hierarch.spec.plugins`. No part's name
is listed here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from hierarch.errors import SpecError
from hierarch.spec.base import fault, nearest, plain, shown
from hierarch.spec.parts import Part
from hierarch.spec.plugins import load_plugins

AnyPart = TypeVar("AnyPart", bound=Part)

_registered: dict[str, dict[str, type[Part]]] = {}


def register(cls: type[AnyPart]) -> type[AnyPart]:
    """Class decorator: registers a part's spec under its `type`.

    Raises `TypeError` for a class without a `type`, and for a registered name.

    >>> from typing import ClassVar, Literal
    >>> from torch import nn
    >>> from hierarch import MixerSpec, load
    >>> @register
    ... class NothingSpec(MixerSpec):
    ...     formula: ClassVar[str] = "0"
    ...     type: Literal["nothing"] = "nothing"
    ...
    ...     def macs(self, *, dim, grid):
    ...         return 0
    ...
    ...     def build(self, dim):
    ...         return nn.Identity()
    >>> load({"mixer": "nothing", "stages": [{"dim": 8, "depth": 1}]}).plan()[0].mixers[0].type
    'nothing'
    """
    name = cls.model_fields["type"].default
    if not isinstance(name, str):
        raise TypeError(f'{cls.__name__} needs a line like  type: Literal["my_mixer"] = "my_mixer"')
    parts = _registered.setdefault(cls.kind, {})
    taken = parts.get(name)
    if taken and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(f"{cls.kind} {name!r} is already registered by {taken.__module__}")
    parts[name] = cls
    return cls


def names(kind: str) -> list[str]:
    """The names of all parts of a kind (`parts.KINDS`), sorted."""
    load_plugins()
    plugins = {entry.name for entry in entry_points(group=f"hierarch.{kind}s")}
    return sorted({*_builtin(kind), *plugins, *_registered.get(kind, {})})


def get(kind: str, name: str) -> type[Part]:
    """The spec class of a part.

    Raises `KeyError`, with the nearest name, if there is none, and `SpecError` if another package's
    entry point, or a plugin, cannot be loaded.
    """
    if name not in _registered.get(kind, {}):
        if name in _builtin(kind):
            importlib.import_module(f"hierarch.{kind}s.{name}")
        else:
            load_plugins()
            for entry in entry_points(group=f"hierarch.{kind}s", name=name):
                _load(entry, kind)
    try:
        return _registered[kind][name]
    except KeyError:
        raise KeyError(f"unknown {kind} {shown(name)}, {nearest(name, names(kind))}") from None


def _load(entry: EntryPoint, kind: str) -> None:
    where = f"{kind} {entry.name!r}, which the entry point {entry.value!r} promises"
    try:
        cls = entry.load()
    except Exception as error:  # another package's code may fail in any way
        raise SpecError(f"{where}, cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Part) and cls.kind == kind):
        raise SpecError(f"{where}, is no {kind}'s spec")
    register(cls)


def _builtin(kind: str) -> list[str]:
    package = importlib.import_module(f"hierarch.{kind}s")
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


PLACEHOLDER = "x-hierarch-part"


class PartOf:
    """Annotation of a field whose value is a registered part of one kind.

    The field is written as a mapping with a `type`, or as the type's name alone.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def resolve(self, value: object) -> Any:
        if isinstance(value, Part) and value.kind == self.kind:
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "part", "should be the name of a {kind}, or a mapping with its type", self.__dict__
            )
        if not isinstance(value.get("type"), str):
            message = f"should name a {self.kind}; known: {', '.join(names(self.kind))}"
            raise fault(self.kind, (("type",), message, value.get("type", ...)))
        try:
            cls = get(self.kind, value["type"])
        except KeyError as error:
            raise fault(self.kind, (("type",), error.args[0], ...)) from None
        return cls.model_validate(value)

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.resolve,
            serialization=core_schema.plain_serializer_function_ser_schema(plain),
        )

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # `hierarch.spec.schema` replaces this by the registered parts
        return {PLACEHOLDER: self.kind}


MAX_CYCLE = 64
"""Entries of a cycle of parts."""


class CycleOf(PartOf):
    """Annotation of a field whose value is a registered part of one kind, or a list of several,
    which the blocks of a stage take in turn. A list of one is that part.

    >>> from hierarch import load
    >>> stages = [{"dim": 8, "depth": 3}]
    >>> spec = load({"mixer": "pooling", "norm": ["affine", "none"], "stages": stages})
    >>> [block.norm.type for block in spec.plan()[0].blocks]
    ['affine', 'none', 'affine']
    """

    def resolve(self, value: object) -> Any:
        if not isinstance(value, list | tuple):
            return super().resolve(value)
        part = Annotated[Part, PartOf(self.kind)]
        several = Annotated[tuple[part, ...], Field(min_length=1, max_length=MAX_CYCLE)]
        parts = TypeAdapter(several).validate_python(value)
        return parts if len(parts) > 1 else parts[0]

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        one = {PLACEHOLDER: self.kind}
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_CYCLE}
        return {"anyOf": [one, several]}


def entries(value: AnyPart | tuple[AnyPart, ...]) -> tuple[AnyPart, ...]:
    """The entries of a cycle; one for a part alone."""
    return value if isinstance(value, tuple) else (value,)


def default(kind: str, name: str) -> Any:
    """The default of a field whose value is a part: that part with its own defaults."""
    return Field(
        default_factory=lambda: PartOf(kind).resolve(name), json_schema_extra={"default": name}
    )
