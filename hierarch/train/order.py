"""Which images a step sees, and every random number of a run, as functions of the seed alone.

Nothing random has a state that is carried from one step to the next. A run that goes on after it
was stopped, or with another number of workers, therefore draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from hierarch.errors import DataError, TrainError

Item = tuple[int, int]
"""An epoch and the index of an image."""


def seed_of(*parts: int | str) -> int:
    """A seed that follows from these parts, and that says nothing of that of any other.

    >>> seed_of(0, "order", 1) == seed_of(0, "order", 1) != seed_of(0, "order", 2)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def epoch_order(seed: int, epoch: int, length: int) -> list[int]:
    """The order of `length` images in one epoch."""
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    order: list[int] = torch.randperm(length, generator=generator).tolist()
    return order


@dataclass(frozen=True)
class Plan:
    """How the images of a run are dealt out to steps, parts of steps and processes.

    Every step has the same images however many parts and processes there are. Those that fill no
    whole step at the end of an epoch are left out; the order of each epoch is another one.
    """

    seed: int
    length: int
    """Images of the set."""
    epochs: int
    batch_size: int
    """Of one step, all parts and processes together."""
    parts: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        if self.length < self.batch_size:
            raise DataError(
                f"the training set has {self.length} images, fewer than one batch of "
                f"{self.batch_size}; set a smaller batch_size"
            )
        if self.batch_size % (self.parts * self.processes):
            raise TrainError(
                f"batch_size={self.batch_size} is not divisible by accumulate={self.parts} times "
                f"{self.processes} processes"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.length // self.batch_size

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def batches(self, process: int, *, start: int = 0) -> Iterator[list[Item]]:
        """The images of a process, a list for each part of each step from step `start`."""
        share = self.batch_size // (self.parts * self.processes)
        first, skipped = divmod(start, self.steps_per_epoch)
        for epoch in range(first, self.epochs):
            order = epoch_order(self.seed, epoch, self.length)
            for step in range(skipped if epoch == first else 0, self.steps_per_epoch):
                for part in range(self.parts):
                    at = step * self.batch_size + (part * self.processes + process) * share
                    yield [(epoch, index) for index in order[at : at + share]]


class Batches(Sampler[list[Item]]):
    """The batches of a plan for one process, as a data loader takes them."""

    def __init__(self, plan: Plan, process: int, *, start: int) -> None:
        self.plan, self.process, self.start = plan, process, start

    def __iter__(self) -> Iterator[list[Item]]:
        return self.plan.batches(self.process, start=self.start)

    def __len__(self) -> int:
        return (self.plan.steps - self.start) * self.plan.parts


class Share(Sampler[list[Item]]):
    """Every image once, in order, dealt out to the processes. Their shares may be uneven, and are
    as many batches in each, of which the last may be empty."""

    def __init__(self, length: int, batch_size: int, *, process: int, processes: int) -> None:
        self.indices = range(process, length, processes)
        self.batch_size = batch_size
        self.batches = -(-length // (processes * batch_size))

    def __iter__(self) -> Iterator[list[Item]]:
        for batch in range(self.batches):
            at = batch * self.batch_size
            yield [(0, index) for index in self.indices[at : at + self.batch_size]]

    def __len__(self) -> int:
        return self.batches
