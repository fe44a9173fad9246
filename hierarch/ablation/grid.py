"""A grid: which networks are compared, and how each is trained, as data. Imports no torch.

A grid is a YAML file, read and checked as a spec is; `hierarch.ablation.plan` works it out.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from hierarch.errors import SpecError
from hierarch.spec.base import Name, Side, Spec, fault, nearest
from hierarch.spec.grid import Sides
from hierarch.spec.lattice import Freedom
from hierarch.spec.match import check_freedoms
from hierarch.spec.reader import Kind
from hierarch.spec.schema import document_schema

GRID = Kind("grid", "`base`, `recipe`, `seeds` and `arms`", "grids")


def _is_a_folder_name(value: str) -> str:
    if value.startswith(".") or not all(c.isalnum() or c in "-_.+" for c in value):
        raise PydanticCustomError(
            "folder", "should be letters, digits and any of -_.+, since a folder is called after it"
        )
    return value


FolderName = Annotated[Name, AfterValidator(_is_a_folder_name)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
BudgetChoice = Literal["macs", "params", "none"]


class ArmSpec(Spec):
    """One network of a grid: the base, and in what it is another one."""

    name: FolderName
    """What tables call it."""
    spec: str | dict[str, Any] | None = None
    """A spec in place of the base: a path from the grid's folder, a preset's name, or a mapping."""
    mixer: str | dict[str, Any] | None = None
    """Another token mixer, as `hierarch swap` takes it: a name, or a mapping that sets fields."""
    stages: tuple[Annotated[int, Strict(), Field(ge=0)], ...] | None = None
    """Stages with the other mixer, and whose widths move; by default all."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values set in the spec, by path: `{mixer.shift_size: 0}`."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Values set in the recipe, by path: `{image_size: 64}`."""
    match: BudgetChoice | None = None
    """What the network costs as much of as the base, for an image of `at`; by default the grid's
    `match`."""
    move: tuple[Freedom, ...] = ("widths",)
    """What may move for that: widths, depths, ratio (the MLP's), in this order."""

    @model_validator(mode="after")
    def _can_move(self) -> ArmSpec:
        try:
            check_freedoms(self.move)
        except SpecError as error:
            raise fault("ArmSpec", (("move",), str(error), ...)) from None
        return self


class Grid(Spec):
    """Networks that are trained alike, each with every seed."""

    name: FolderName = "grid"
    """What the grid's folder is called after."""
    base: str | dict[str, Any]
    """The spec that every arm differs from: a path from the grid's folder, a preset's name, or a
    mapping."""
    recipe: str | dict[str, Any]
    """How every arm is trained: a path from the grid's folder, a recipe's name, or a mapping."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000)]
    """Of weights, order and augmentation. An arm and the reference are compared seed by seed."""
    match: BudgetChoice = "none"
    """The budget of arms that name none: macs, params, or none. An arm that is the base keeps its
    widths."""
    at: Annotated[int | Sides, Side(8, 4096)] | None = None
    """Size of the image of that budget; by default the one that the base is trained at."""
    arms: Annotated[tuple[ArmSpec, ...], Field(min_length=2, max_length=1000)]
    """The networks."""
    reference: FolderName | None = None
    """The arm that the others are compared with; by default the first."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Grid:
        names = [arm.name for arm in self.arms]
        for i, name in enumerate(names):
            # folders may not tell upper from lower case
            if name.lower() in (other.lower() for other in names[:i]):
                raise fault("Grid", (("arms", i, "name"), "is the name of two arms", name))
        if self.reference is not None and self.reference not in names:
            message = f"should be the name of an arm; {nearest(self.reference, names)}"
            raise fault("Grid", (("reference",), message, self.reference))
        return self

    @model_validator(mode="after")
    def _seeds_are_unique(self) -> Grid:
        if len({*self.seeds}) < len(self.seeds):
            raise fault("Grid", (("seeds",), "should be different from each other", self.seeds))
        return self


@functools.cache
def grid_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a grid's YAML."""
    return document_schema(Grid, GRID.word)
