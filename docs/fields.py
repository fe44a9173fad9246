"""The tables of fields in spec.md, training.md and experiments.md, from the library's own schemas
and docstrings."""

import re
from pathlib import Path
from typing import Any

import hierarch
from hierarch.ablation import grid
from hierarch.spec import registry
from hierarch.spec.base import Spec
from hierarch.spec.extra_tokens import ExtraTokensSpec
from hierarch.spec.fields import FieldInfo, describe, either, yaml
from hierarch.spec.head import HeadSpec
from hierarch.spec.rope import RopeSpec
from hierarch.train import recipe

BLOCK = re.compile(r"(<!-- fields: (?P<of>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

DOCS = Path(__file__).resolve().parent
PAGES = [DOCS / name for name in ("spec.md", "training.md", "experiments.md")]
SCHEMAS = {
    (
        hierarch.BackboneSpec,
        hierarch.StageSpec,
        HeadSpec,
        ExtraTokensSpec,
        RopeSpec,
    ): hierarch.schema,
    (
        recipe.Recipe,
        recipe.OptimizerRecipe,
        recipe.ScheduleRecipe,
        recipe.AugmentRecipe,
        recipe.MixRecipe,
        recipe.EvaluateRecipe,
    ): recipe.recipe_schema,
    (grid.Grid, grid.ArmSpec): grid.grid_schema,
}
"""What has a table, and the schema of each kind of document; its first class is the document."""


def filled(document: str) -> str:
    """A document with a table between "<!-- fields: NAME -->" and "<!-- end -->".

    NAME is a class of a spec, or a kind of part: then each built-in part of it has a section.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n{_block(found['of'])}\n\n{found[3]}", document)


def _block(of: str) -> str:
    for classes, schema in SCHEMAS.items():
        for cls in classes:
            if cls.__name__ == of:
                whole = schema()
                return _table(cls, whole if cls is classes[0] else whole["$defs"][of])
    parts = hierarch.schema()["$defs"]
    return "\n\n".join(_part(of, name, parts[f"{of}.{name}"]) for name in builtin(of))


def builtin(kind: str) -> list[str]:
    """The names of the library's own parts of a kind."""
    every = registry.names(kind)
    return [n for n in every if registry.get(kind, n).__module__.startswith("hierarch.")]


def _part(kind: str, name: str, schema: dict[str, Any]) -> str:
    cls = registry.get(kind, name)
    heading = f"### `{name}`\n\n{schema['description']}\n\n- Paper: {cls.paper}."
    pieces = [f"{heading}\n- MACs: {cls.formula}."]
    if one_of := sorted(getattr(cls, "one_of", ())):
        pieces.append(f"Give exactly one of {either(map(_code, one_of), ' and ')}.")
    table = _table(cls, schema, without="type")
    pieces.append(table if len(cls.model_fields) > 1 else "It has no fields.")
    return "\n\n".join(pieces)


def _table(cls: type[Spec], schema: dict[str, Any], *, without: str = "") -> str:
    rows = [
        (f"`{field.name}`", field.type, _default(cls, field), field.description)
        for field in describe(cls, schema["properties"], quote=_code)
        if field.name != without
    ]
    header = [("field", "values", "default", "what it says"), ("---",) * 4]
    return "\n".join(f"| {' | '.join(map(_in_a_cell, row))} |" for row in [*header, *rows])


def _code(text: str) -> str:
    return f"`{text}`"


def _in_a_cell(text: str) -> str:
    return text.replace("|", r"\|")


def _default(cls: type[Spec], field: FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is None:
        return "the top level's" if cls is hierarch.StageSpec else "none"
    return _code(yaml(field.default))
