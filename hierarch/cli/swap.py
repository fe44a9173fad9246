"""`hierarch swap`: replaces a part, such as the token mixer, in a spec's file, and keeps its
comments."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierarch.cli import completion
from hierarch.cli.common import Format, numbers, save, set_option, sizes, spec_argument, write
from hierarch.cli.progress import progress
from hierarch.errors import SpecError

if TYPE_CHECKING:
    from hierarch.spec.grid import Sides
    from hierarch.spec.overrides import Assignment
    from hierarch.spec.swap import Swap


class BudgetName(StrEnum):
    """The names of `hierarch.spec.budget.BudgetName`, repeated here so that --help is fast."""

    macs = "macs"
    params = "params"
    latency = "latency"


def swap(
    spec: spec_argument,
    mixer: Annotated[
        str | None,
        typer.Option("--mixer", help="The new mixer's name.", autocompletion=completion.mixers),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="KIND=NAME",
            help="Another part, in place of --mixer: channel_mixer=glu, norm=affine, ...",
            autocompletion=completion.parts,
        ),
    ] = None,
    stages: Annotated[
        str | None, typer.Option("--stages", help="Stages to swap in, from 0: 2,3. All by default.")
    ] = None,
    match: Annotated[
        BudgetName | None,
        typer.Option(
            "--match", help="Make the swapped stages as wide as costs what they cost before."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="SIZE",
            help="With --match macs or latency: the image's size, 224 or 896x1120 (height x "
            "width). The spec's, if not given.",
        ),
    ] = None,
    move: Annotated[
        str,
        typer.Option(
            "--move",
            help="With --match: what may move, in this order: widths, depths, ratio (the MLP's).",
        ),
    ] = "widths",
    set: set_option = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write, instead of stdout.")
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="With --output: list carried over and dropped fields on stdout, in this format.",
        ),
    ] = None,
) -> None:
    """Swap the token mixer, or another part, of some stages, or of all, and write the new YAML.

    Fields that both parts have keep their values. --set mixer.FIELD=VALUE sets a field of the new
    mixer; other paths are set in the spec first. Carried over and dropped fields are listed on
    stderr, and how close a budget came.

    Example: hierarch swap swin_tiny --mixer window_mlp --stages 2,3 --set mixer.window_size=8
    """
    from hierarch.report import SwapReport
    from hierarch.spec.load import dump, read, validate
    from hierarch.spec.overrides import assign, parse_assignment
    from hierarch.swapping import explain

    if format and output is None:
        raise SpecError("--format needs --output FILE: without it, stdout is the new YAML")
    kind, name = _new(mixer, part)
    assignments = [parse_assignment(text) for text in set or ()]
    fields = {keys[1]: value for keys, value in assignments if _is_field(kind, keys)}
    rest = [assignment for assignment in assignments if not _is_field(kind, assignment[0])]
    document = read(spec)
    assign(document.data, rest)
    before = validate(document)
    wanted = numbers(stages, "--stages") if stages is not None else None
    budget: Any = {
        "match": match and match.value,
        "at": None if at is None else _size(at, before.axes),
        "move": [part.strip() for part in move.split(",")],
    }
    with progress("timing") as advance:
        swapped = explain(
            before,
            {**fields, "type": name},
            wanted,
            part=kind,
            advance=advance,
            **budget,
        )

    text = _rewritten(spec, rest, swapped)
    report = SwapReport(swapped, layout_kept=text is not None)
    text = text or dump(swapped.spec)
    if format is None:
        write(report, Format.table, err=True)
    if output is None:
        typer.echo(text, nl=False)
    else:
        save(output, text)
    if format is not None:
        write(report, format)


def _size(text: str, axes: int) -> Sides:
    [size, *more] = sizes(text, "--at", axes=axes)
    if more:
        raise SpecError(f"--at {text[:80]!r}: takes one size")
    return size


def _new(mixer: str | None, part: str | None) -> tuple[str, str]:
    """The kind and the name of the new part."""
    if (mixer is None) == (part is None):
        raise typer.BadParameter("give one of --mixer NAME and --part KIND=NAME")
    kind, equals, name = f"mixer={mixer}".partition("=") if part is None else part.partition("=")
    if not equals:
        raise SpecError(f"--part {kind[:80]!r}: should be KIND=NAME, such as channel_mixer=glu")
    return kind, name


def _is_field(kind: str, keys: list[str]) -> bool:
    return len(keys) == 2 and keys[0] == kind


def _rewritten(spec: str, assignments: list[Assignment], swapped: Swap) -> str | None:
    """The source's text with the swap; None if that text would be another spec.

    This happens if a swapped stage and another stage share a YAML anchor.
    """
    from hierarch.spec.load import find, loads, round_trip, to_yaml
    from hierarch.spec.overrides import assign

    source = round_trip().load(find(spec).read_text("utf-8-sig"))
    assign(source, assignments)
    _lay_out(source)
    _edit(source, swapped)
    text = to_yaml(source)
    try:
        return text if loads(text) == swapped.spec else None
    except SpecError:
        return None


def _lay_out(source: Any) -> None:
    """Write top-level values of `--set` in one line, as in the presets."""
    from hierarch.spec.load import in_line

    for key, value in source.items():
        if type(value) in (dict, list):
            source[key] = in_line(value)


def _edit(source: Any, swapped: Swap) -> None:
    """Put the new parts into the source's nodes, so that comments and order are kept."""
    from hierarch.spec.load import in_line

    for place in swapped.places:
        node = source if place is None else source["stages"][place]
        at = swapped.spec if place is None else swapped.spec.stages[place]
        new = getattr(at, swapped.part)
        cycle = new if isinstance(new, tuple) else (new,)
        old = node.get(swapped.part)
        entries = old if isinstance(old, list) else [old]
        for i, part in enumerate(cycle):
            if i < len(entries) and isinstance(entries[i], dict):
                _update(entries[i], part)
            elif isinstance(old, list) and i < len(entries):
                old[i] = in_line(part.to_data())
            else:
                data = [part.to_data() for part in cycle]
                node[swapped.part] = in_line(data if len(data) > 1 else data[0])
        if isinstance(old, list):
            del old[len(cycle) :]
    _set(source, {"mlp_ratio": swapped.spec.mlp_ratio}, {"mlp_ratio": 4})
    for node, stage in zip(source["stages"], swapped.spec.stages, strict=True):
        moved = {name: getattr(stage, name) for name in ("dim", "depth", "mlp_ratio")}
        _set(node, moved, {"mlp_ratio": None})


def _set(node: Any, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Make a mapping say these values, touching no key that already does."""
    for key, value in values.items():
        if node.get(key, defaults.get(key)) != value:
            node[key] = int(value) if value == int(value) else value


def _update(entry: Any, part: Any) -> None:
    """Make a mapping equal to `part`, and change only keys that differ."""
    from hierarch.spec.load import in_line

    data = part.to_data()
    wanted = {"type": data} if isinstance(data, str) else data
    for key in list(entry):
        if key not in type(part).model_fields:
            del entry[key]
    present = {key: getattr(part, key) for key in entry}
    for key, value in (present | wanted).items():
        plain = list(value) if isinstance(value, tuple) else value
        if key not in entry or entry[key] != plain:
            entry[key] = in_line(plain)
