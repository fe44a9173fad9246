"""`convert`: a checkpoint from one library's layout to another's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierarch.cli.common import Format, format_option, write_json, write_rows
from hierarch.errors import SpecError, WeightsError


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A checkpoint, of any layout.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="What to write: .safetensors, .pth, .pt or .bin.")
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="hierarch, official, timm, torchvision, huggingface or mmdetection.",
        ),
    ] = "hierarch",
    source_layout: Annotated[
        str, typer.Option("--from", help="The layout of IN; told from its keys by default.")
    ] = "auto",
    spec: Annotated[
        str | None,
        typer.Option("--spec", metavar="SPEC", help="The network; worked out by default."),
    ] = None,
    window_size: Annotated[
        str | None,
        typer.Option(
            "--window-size",
            metavar="N",
            help="The window, as 8 or 8x16, for weights that do not tell it (Swin V2).",
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

    done = convert_weights(
        source,
        output,
        layout=layout,
        source_layout=source_layout,
        spec=spec,
        window_size=_window(window_size),
    )
    if spec_out is not None:
        if done.spec is None:
            raise WeightsError("the network's spec cannot be told from its weights; give --spec")
        _write_spec(spec_out, dump(done.spec), done.assumed)
    for sentence in done.assumed:
        typer.echo(f"assumed: {sentence}", err=True)
    row = {
        "from": done.source_layout,
        "to": done.layout,
        "tensors": done.tensors,
        "bytes": done.bytes,
        "ignored": list(done.ignored),
        "assumed": list(done.assumed),
        "output": str(output),
    }
    if format is Format.json:
        write_json(row)
        return
    cells = row | {"ignored": len(done.ignored), "assumed": len(done.assumed)}
    write_rows([{key: _shown(value) for key, value in cells.items()}], format)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _window(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(s.isascii() and s.isdecimal() and 0 < len(s) < 4 for s in sides):
        raise SpecError(f"--window-size {text[:80]!r}: write it as 8, or as 8x16 (height x width)")
    return int(sides[0]), int(sides[-1])


def _write_spec(path: Path, text: str, assumed: tuple[str, ...]) -> None:
    from hierarch.files import write_text

    comments = "".join(f"# assumed: {sentence}\n" for sentence in assumed)
    try:
        write_text(path, comments + text)
    except OSError as error:
        raise SpecError(f"cannot be written: {error.strerror}", source=str(path)) from None
