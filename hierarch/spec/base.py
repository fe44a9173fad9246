"""The base class of specs, the types of their fields, and helpers for their error messages.

Specs are frozen and reject unknown keys. Numbers are bounded, far beyond any published network, so
that a typo or a hostile file gives an error and does not exhaust the memory.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from hierarch.spec.grid import Sides

MAX_DEPTH = 256
"""Blocks of a stage."""
Dim = Annotated[int, Strict(), Field(ge=1, le=16_384)]
Depth = Annotated[int, Strict(), Field(ge=0, le=MAX_DEPTH)]
Ratio = Annotated[float, Strict(), Field(gt=0, le=64, allow_inf_nan=False)]
Rate = Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]


def _is_printable(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("printable", "should be printable text, in one line")
    return value


Name = Annotated[str, Strict(), Field(min_length=1, max_length=200), AfterValidator(_is_printable)]


def _is_odd(value: int) -> int:
    if value % 2 == 0:
        raise PydanticCustomError("odd", "should be odd")
    return value


Kernel = Annotated[int, Strict(), Field(ge=1, le=63), AfterValidator(_is_odd)]
"""Side of a kernel with a center; odd."""


class Side:
    """Annotation of lengths: an integer in bounds, which means both axes of an image, or a list of
    one per axis, such as [height, width]. `axes` are the numbers of axes that there may be.

    >>> from typing import Annotated
    >>> from pydantic import TypeAdapter
    >>> window = TypeAdapter(Annotated[int | tuple[int, ...], Side(1, 64, axes=(1, 2, 3))])
    >>> window.validate_python(7), window.validate_python([4, 8]), window.validate_python([8, 7, 7])
    (7, (4, 8), (8, 7, 7))
    """

    def __init__(self, low: int, high: int, *, axes: Collection[int] = (2,)) -> None:
        self.low, self.high, self.axes = low, high, axes

    def check(self, value: object) -> int | Sides:
        sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
        in_bounds = all(type(s) is int and self.low <= s <= self.high for s in sides)
        if not in_bounds or len(sides) not in self.axes:
            raise PydanticCustomError(
                "side",
                "should be an integer from {low} to {high}, or {several}",
                {"low": self.low, "high": self.high, "several": self._several()},
            )
        return sides[0] if len(sides) == 2 and sides[0] == sides[1] else sides

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        integer = {"type": "integer", "minimum": self.low, "maximum": self.high}
        counts = {"minItems": min(self.axes), "maxItems": max(self.axes)}
        return {"anyOf": [integer, {"type": "array", "items": integer, **counts}]}

    def _several(self) -> str:
        if tuple(self.axes) == (2,):
            return "a pair [height, width] of them"
        return "a list of them, one per axis"


def nearest(word: object, known: Iterable[str], *, all_of: Iterable[str] = ()) -> str:
    """The end of an error message: the nearest known name, or all names if none is near.

    `all_of`, if given, is listed in place of all names, where these are too many.
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(word)[:80], names, n=1)
    listed = sorted(all_of) or names
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(listed)}"


def shown(value: object) -> str:
    """A value for an error message: at most 60 characters, in one line."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"a list of {len(value)}"
    try:
        text = repr(value)
    except Exception:  # nested too deeply, or with more digits than Python prints
        return f"a value ({type(value).__name__}) too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def fault(title: str, *details: tuple[tuple[str | int, ...], str, object]) -> ValidationError:
    """A validation error with these details: (path, message, invalid value) each."""
    return ValidationError.from_exception_data(
        title,
        [
            InitErrorDetails(
                type=PydanticCustomError("spec", "{text}", {"text": text}), loc=loc, input=value
            )
            for loc, text, value in details
        ],
    )


class Spec(BaseModel):
    """A frozen mapping that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = cls.model_fields
            unknown = [k if isinstance(k, str) else shown(k) for k in data if k not in known]
            if unknown:
                raise fault(
                    cls.__name__,
                    *(((k,), f"unknown key {shown(k)}, {nearest(k, known)}", ...) for k in unknown),
                )
        return data

    def to_data(self) -> Any:
        """The spec as plain data, without fields at their default; it loads as an equal spec."""
        return {
            name: plain(value)
            for name, field in type(self).model_fields.items()
            if (value := getattr(self, name)) != field.get_default(call_default_factory=True)
        }


def plain(value: Any) -> Any:
    """A field's value as plain data: a spec as its mapping, a tuple as a list."""
    if isinstance(value, Spec):
        return value.to_data()
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value
