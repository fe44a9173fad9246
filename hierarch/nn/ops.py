"""The seam between what the network computes and how it runs.

An op is a function whose body is its definition. Others may register ways to compute the same
result faster (`hierarch.engine` does). A call takes the first way that does not refuse its
arguments, or else the definition. Without any registered way the network is complete and correct.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from torch import nn

P = ParamSpec("P")
T = TypeVar("T")


class Refusal(NamedTuple):
    """Why a way does not take a call."""

    reason: str
    module: nn.Module | None = None
    """The module that is the reason, if one is."""
    inapplicable: bool = False
    """Whether the way is for another kind of call altogether, such as one in training."""


class Way(NamedTuple):
    """Another implementation of an op."""

    name: str
    refuses: Callable[..., Refusal | None]
    """Takes the op's arguments, and returns None where `run` may be called with them."""
    run: Callable[..., Any]


class Op(Generic[P, T]):
    """A function that may be computed in other ways than by its own body."""

    def __init__(self, definition: Callable[P, T]) -> None:
        functools.update_wrapper(self, definition)
        self.definition = definition
        self.ways: list[Way] = []
        """In the order in which they are asked."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        if _seam.observer is not None:
            result: T = _seam.observer(self, args, kwargs)
            return result
        return self.chosen(*args, **kwargs)(*args, **kwargs)

    def chosen(self, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        """The first way that takes these arguments, else the definition."""
        if _seam.enabled:
            for way in self.ways:
                if way.refuses(*args, **kwargs) is None:
                    return way.run
        return self.definition


def op(definition: Callable[P, T]) -> Op[P, T]:
    """Decorator: makes an op of the function that defines it."""
    return Op(definition)


class _Seam:
    enabled = True
    observer: Callable[[Op[..., Any], Any, Any], Any] | None = None
    """Makes each call in place of `Op.__call__`, and so sees it."""


_seam = _Seam()


def is_enabled() -> bool:
    """Whether calls ask the registered ways."""
    return _seam.enabled


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """While entered, every op runs its definition, in all threads of the process."""
    before, _seam.enabled = _seam.enabled, False
    try:
        yield
    finally:
        _seam.enabled = before


@contextlib.contextmanager
def observed(observer: Callable[[Op[..., Any], Any, Any], Any]) -> Iterator[None]:
    """While entered, `observer(op, args, kwargs)` makes each call of an op, in all threads."""
    before, _seam.observer = _seam.observer, observer
    try:
        yield
    finally:
        _seam.observer = before
