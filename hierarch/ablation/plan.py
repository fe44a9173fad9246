"""From a grid to the spec and the recipe of every arm. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hierarch.ablation.grid import GRID, ArmSpec, BudgetChoice, Grid
from hierarch.errors import Problem, SpecError
from hierarch.spec import documents
from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.budget import Budget, Macs, Params, spent
from hierarch.spec.difference import difference
from hierarch.spec.grid import Sides, per_axis
from hierarch.spec.load import read, validate, with_classes
from hierarch.spec.match import Match
from hierarch.spec.match import match as match_claim
from hierarch.spec.overrides import assign
from hierarch.spec.reader import SPEC, Document, Kind, written
from hierarch.spec.swap import explain as explain_swap
from hierarch.train.recipe import RECIPE, Recipe, image_size

Source = str | os.PathLike[str] | Mapping[str, Any]
Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Arm:
    """One network of a grid, and how it is trained."""

    name: str
    spec: BackboneSpec
    recipe: Recipe
    difference: tuple[str, ...] = ()
    """From the reference, in words; empty for the reference."""
    match: Match | None = None
    """How the budget was met, where there is one."""

    @property
    def size(self) -> Sides:
        """The image's, in pixels, in training."""
        return image_size(self.spec, self.recipe)


@dataclass(frozen=True)
class Plan:
    """A grid, worked out."""

    name: str
    arms: tuple[Arm, ...]
    reference: str
    seeds: tuple[int, ...]
    grid: dict[str, Any]
    """The grid in one mapping, with what stands in the files that it names."""


def plan(source: Source, *, classes: int | None = None) -> Plan:
    """Read a grid from a YAML file's path or a mapping, and work out its arms.

    An arm is its `spec`, or the base; then its `mixer`, then what it `set`s, and last its budget,
    which is the base's cost. `classes` are those of the classifier of every arm; None for those of
    the specs. Raises `SpecError`, with file, line, column and path, for a mistake in the grid, or
    in the spec or recipe of an arm.
    """
    document = _read(source)
    grid = documents.validate(document, Grid, GRID)
    files = _Files(document)
    base = files.spec("base", classes=classes)
    recipe = files.recipe("recipe")
    size = per_axis(grid.at) if grid.at else image_size(base, recipe)
    arms, lines = [], []
    for i, arm in enumerate(grid.arms):
        spec = base if arm.spec is None else files.spec("arms", i, "spec", classes=classes)
        with _of_arm(document, i, arm.name):
            changed = _changed(spec, arm)
            found = _matched(changed, base, arm.match or grid.match, size, arm)
            arms.append(
                Arm(
                    arm.name,
                    found.spec if found else changed,
                    _set_in(recipe, arm.recipe),
                    match=found,
                )
            )
        lines.append(arm.to_data() | ({} if arm.spec is None else {"spec": spec.to_data()}))
    reference = grid.reference or grid.arms[0].name
    first = next(arm for arm in arms if arm.name == reference)
    return Plan(
        name=grid.name,
        arms=tuple(replace(arm, difference=_words(first, arm)) for arm in arms),
        reference=reference,
        seeds=grid.seeds,
        grid=grid.to_data() | {"base": base.to_data(), "recipe": recipe.to_data(), "arms": lines},
    )


def _read(source: Source) -> Document:
    if isinstance(source, Mapping):
        return Document(dict(source))
    if isinstance(source, str | os.PathLike):
        return documents.read(source, GRID)
    raise SpecError(f"a grid is a path or a mapping, not {type(source).__name__}")


@dataclass(frozen=True)
class _Files:
    """The specs and recipes that a grid names, or that stand in it."""

    document: Document

    def spec(self, *keys: str | int, classes: int | None) -> BackboneSpec:
        spec = validate(self._part(keys, SPEC))
        return spec if classes is None else with_classes(spec, classes)

    def recipe(self, *keys: str | int) -> Recipe:
        return documents.validate(self._part(keys, RECIPE), Recipe, RECIPE)

    def _part(self, keys: Keys, kind: Kind) -> Document:
        """The document at a place of the grid: the mapping there, or the file that it names."""
        value: Any = self.document.data
        for key in keys:
            value = value[key]
        if isinstance(value, str):
            beside = Path(self.document.source).parent / value
            try:
                return documents.read(beside if beside.is_file() else value, kind)
            except SpecError as error:
                place = self.document.place(keys)
                raise _placed(error, self.document, written(keys), place) from None
        places = {
            path[len(keys) :]: place
            for path, place in self.document.places.items()
            if path[: len(keys)] == keys
        }
        return Document(value, places, self.document.source)


@contextmanager
def _of_arm(document: Document, index: int, name: str) -> Iterator[None]:
    """A mistake in what an arm comes out as, told at the arm's place."""
    try:
        yield
    except SpecError as error:
        keys = ("arms", index)
        raise _placed(error, document, f"{written(keys)} ({name})", document.place(keys)) from None


def _placed(error: SpecError, document: Document, path: str, place: tuple[int, int]) -> SpecError:
    file = f"{error.source}: " if error.source else ""
    problems = [Problem(f"{file}{problem}", path, *place) for problem in error.problems]
    return SpecError(problems, source=document.source)


def _changed(spec: BackboneSpec, arm: ArmSpec) -> BackboneSpec:
    """The spec with the arm's mixer, and with what the arm sets."""
    if arm.mixer is not None:
        spec = explain_swap(spec, arm.mixer, arm.stages).spec
    document = read(spec)
    assign(document.data, _assignments(arm.set))
    return validate(document) if arm.set else spec


def _set_in(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    document = Document(recipe.to_data())
    assign(document.data, _assignments(values))
    return documents.validate(document, Recipe, RECIPE) if values else recipe


def _assignments(values: Mapping[str, Any]) -> Iterator[tuple[list[str], Any]]:
    for path, value in values.items():
        yield path.split("."), value


def _matched(
    spec: BackboneSpec, base: BackboneSpec, budget: BudgetChoice, size: Sides, arm: ArmSpec
) -> Match | None:
    """The spec at the base's cost; None without a budget, and for the base."""
    if budget == "none" or spec == base:
        return None
    cost: Budget = Macs.of(spec, size) if budget == "macs" else Params(spec)
    bases: Budget = Macs.of(base, size) if budget == "macs" else Params(base)
    stages = range(len(spec.stages)) if arm.stages is None else arm.stages
    return match_claim(spec, cost, spent(bases, base.plan()), stages=stages, move=arm.move)


def _words(first: Arm, arm: Arm) -> tuple[str, ...]:
    """How an arm differs from the reference: its network, and its recipe."""
    ours, theirs = arm.recipe.to_data(), first.recipe.to_data()
    changed = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    recipe = [f"{name}: {theirs.get(name)} → {ours.get(name)}" for name in changed]
    return (*difference(first.spec, arm.spec), *(f"recipe {line}" for line in recipe))
