"""Where the engine takes over: operations of the network, and other ways to run them.

An operation is a function or a method of `hierarch.nn`, whose body is its definition. `running`
puts another function in its place, which asks the operation's ways in order: the first one that
does not refuse the arguments runs, or else the definition. Without the engine nothing is replaced.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn


class Refusal(NamedTuple):
    """Why a way does not take a call."""

    reason: str
    module: nn.Module | None = None
    """The module that is the reason, if one is."""
    inapplicable: bool = False
    """Whether the way is for another kind of call altogether, such as one in training."""


class Way(NamedTuple):
    """Another implementation of an operation."""

    name: str
    refuses: Callable[..., Refusal | None]
    """Takes the operation's arguments, and returns None where `run` may be called with them."""
    run: Callable[..., Any]


class Op:
    """An operation that may run in other ways than by its definition."""

    def __init__(self, owner: Any, name: str, *ways: Way) -> None:
        self.owner, self.name, self.ways = owner, name, ways
        """`owner` is the class or the module of which it is an attribute, called `name`."""
        self.definition: Callable[..., Any] = getattr(owner, name)

    @property
    def label(self) -> str:
        """`Stage.forward`, `linear`."""
        return f"{self.owner.__name__}.{self.name}" if isinstance(self.owner, type) else self.name


Runner = Callable[[Op], Callable[..., Any]]
"""Returns the function that is called for an operation."""


def definition(op: Op) -> Callable[..., Any]:
    """Runs the definition."""
    return op.definition


def dispatch(op: Op) -> Callable[..., Any]:
    """Runs the first way that does not refuse, else the definition."""
    ways, definition = op.ways, op.definition

    def call(*args: Any, **kwargs: Any) -> Any:
        for way in ways:
            if way.refuses(*args, **kwargs) is None:
                return way.run(*args, **kwargs)
        return definition(*args, **kwargs)

    # code of its own, since torch.compile limits the programs that are made of one
    call.__code__ = call.__code__.replace(co_name=op.name)
    return functools.wraps(definition)(call)


class Seam:
    """The operations, and how they run now, in all threads of the process."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.runner: Runner = definition

    def run_by(self, runner: Runner) -> None:
        """Lets each operation run by the function that `runner` makes for it."""
        self.runner = runner
        for op in self.ops:
            setattr(op.owner, op.name, runner(op))

    @contextlib.contextmanager
    def running(self, runner: Runner) -> Iterator[None]:
        """`run_by` while entered."""
        before = self.runner
        self.run_by(runner)
        try:
            yield
        finally:
            self.run_by(before)
