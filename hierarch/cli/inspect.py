"""`show`, `validate`, `mixers` and `schema`: looking at specs and at what they can be made of."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hierarch.cli.common import (
    Format,
    format_option,
    read_spec,
    set_option,
    sizes,
    spec_argument,
    specs_argument,
    write_json,
    write_rows,
)
from hierarch.errors import SpecError


def show(
    spec: spec_argument,
    size: Annotated[
        str | None, typer.Option("--size", help="Image size; the spec's nominal one by default.")
    ] = None,
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Show a network's architecture as a table: grids, strides, widths, mixers, parameters, MACs.

    Example: hierarch show swin_tiny --size 448
    """
    from hierarch.complexity.architecture import architecture
    from hierarch.spec.base import pair

    loaded = read_spec(spec, set)
    at = sizes(size) if size is not None else [pair(loaded.input_size)]
    if len(at) > 1:
        raise SpecError(f"--size {size!r}: one size, such as 448 or 448x640")
    write_rows(architecture(loaded, at[0]), format)


def validate(specs: specs_argument, set: set_option = None) -> None:
    """Check specs, and say what is wrong with each, and where. Exit status 2 if any is.

    Example: hierarch validate specs/*.yaml
    """
    wrong = []
    for source in specs:
        try:
            loaded = read_spec(source, set)
        except SpecError as error:
            wrong.append(str(error))
            continue
        blocks = sum(stage.depth for stage in loaded.stages)
        typer.echo(f"{source}: ok, {loaded.name}, {len(loaded.stages)} stages, {blocks} blocks")
    if wrong:
        raise SpecError("\nerror: ".join(wrong))


def mixers(format: format_option = Format.table) -> None:
    """List the token mixers that can be named in a spec: fields, defaults, cost, paper.

    Example: hierarch mixers --format markdown
    """
    from hierarch.spec.registry import get, names

    rows = []
    for name in names("mixer"):
        cls = get("mixer", name)
        fields = {key: field for key, field in cls.model_fields.items() if key != "type"}
        rows.append(
            {
                "mixer": name,
                "fields and defaults": ", ".join(
                    f"{key}={_shown(field.default)}" for key, field in fields.items()
                ),
                "MACs": cls.formula,
                "paper": cls.paper,
            }
        )
    write_rows(rows, format)


def schema() -> None:
    """Write the JSON Schema of a spec, for completion and hover text in an editor.

    Example: hierarch schema > schema.json
    """
    from hierarch.spec.schema import schema as make

    write_json(make())


def _shown(default: Any) -> str:
    return "-" if default is None else str(default)
