"""`convert`: a checkpoint from one library's layout to another's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierarch.cli import completion
from hierarch.cli.common import Format, format_option, save, write
from hierarch.errors import SpecError, WeightsError
from hierarch.weights.registry import libraries


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A checkpoint, of any layout.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="What to write: .safetensors, .pth, .pt or .bin.")
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help=f"The layout of OUT: {', '.join(libraries())}.",
            autocompletion=completion.layouts,
        ),
    ] = "hierarch",
    source_layout: Annotated[
        str,
        typer.Option(
            "--from",
            help="The layout of IN; recognized by default.",
            autocompletion=completion.source_layouts,
        ),
    ] = "auto",
    key: Annotated[
        str | None,
        typer.Option("--key", help="The entry of IN that holds the network: teacher, state_dict."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", help="What stands before its names in IN: module.backbone."),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option(
            "--spec",
            metavar="SPEC",
            help="The network; inferred by default.",
            autocompletion=completion.specs,
        ),
    ] = None,
    window_size: Annotated[
        str | None,
        typer.Option(
            "--window-size",
            metavar="N",
            help="The window, as 8 or 8x16, if the weights do not determine it (Swin V2).",
        ),
    ] = None,
    spec_out: Annotated[
        Path | None, typer.Option("--spec-out", help="Write the network's spec, as YAML.")
    ] = None,
    format: format_option = Format.table,
) -> None:
    """Convert a checkpoint to another library's layout, buffers included.

    Example: hierarch convert swin_tiny.pth swin_tiny.safetensors --layout timm
    """
    from hierarch.spec.load import dump
    from hierarch.weights.convert import convert_weights

    report = convert_weights(
        source,
        output,
        layout=layout,
        source_layout=source_layout,
        key=key,
        prefix=prefix,
        spec=spec,
        window_size=_window(window_size),
    )
    if spec_out is not None:
        if report.spec is None:
            raise WeightsError("the weights do not determine the network's spec; give --spec")
        assumed = "".join(f"# assumed: {sentence}\n" for sentence in report.assumed)
        save(spec_out, assumed + dump(report.spec))
    for sentence in report.assumed:
        typer.echo(f"assumed: {sentence}", err=True)
    write(report, format)


def _window(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(s.isascii() and s.isdecimal() and 0 < len(s) < 4 for s in sides):
        raise SpecError(f"--window-size {text[:80]!r}: write it as 8, or as 8x16 (height x width)")
    return int(sides[0]), int(sides[-1])
