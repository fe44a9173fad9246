"""`show`, `validate`, `mixers` and `schema`: commands that describe specs and their parts."""

from __future__ import annotations

from typing import Annotated

import typer

from hierarch.cli.common import (
    Format,
    format_option,
    read_spec,
    set_option,
    sizes,
    spec_argument,
    specs_argument,
    write,
    write_json,
)
from hierarch.errors import SpecError


def show(
    spec: spec_argument,
    size: Annotated[
        str | None, typer.Option("--size", help="Image size; by default the spec's nominal one.")
    ] = None,
    format: format_option = Format.table,
    set: set_option = None,
) -> None:
    """Show a network's architecture as a table: grids, strides, widths, mixers, parameters, MACs.

    Example: hierarch show swin_tiny --size 448
    """
    from hierarch.complexity.architecture import architecture

    loaded = read_spec(spec, set)
    at = sizes(size, axes=loaded.axes) if size is not None else [loaded.size]
    if len(at) > 1:
        raise SpecError(f"--size {size!r}: one size, such as 448 or 448x640")
    write(architecture(loaded, at[0]), format)


def validate(
    specs: specs_argument, format: format_option = Format.table, set: set_option = None
) -> None:
    """Check specs, and list each mistake with its place. Exit status 2 if there is one.

    Example: hierarch validate specs/*.yaml
    """
    from hierarch.report import ValidatedSpec, Validation

    checked, errors = [], []
    for source in specs:
        try:
            loaded = read_spec(source, set)
        except SpecError as error:
            errors.append(str(error))
            checked.append(ValidatedSpec(source=source, problems=error.problems))
            continue
        stages, blocks = len(loaded.stages), sum(stage.depth for stage in loaded.stages)
        checked.append(ValidatedSpec(source=source, name=loaded.name, stages=stages, blocks=blocks))
    write(Validation(tuple(checked)), format)
    if errors:
        raise SpecError("\nerror: ".join(errors))


def mixers(format: format_option = Format.table) -> None:
    """List the token mixers that can be named in a spec: fields, defaults, cost, paper.

    Example: hierarch mixers --format markdown
    """
    from hierarch.report import mixer_listing

    write(mixer_listing(), format)


def schema() -> None:
    """Write the JSON Schema of a spec, for completion and hover text in an editor.

    Example: hierarch schema > schema.json
    """
    from hierarch.spec.schema import schema as make

    write_json(make())
