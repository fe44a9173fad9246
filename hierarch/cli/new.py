"""`hierarch new`: a commented spec to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hierarch.cli import completion
from hierarch.cli.common import save, sizes
from hierarch.errors import SpecError
from hierarch.spec.shipped import FAMILIES


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The network's name.")] = "my_net",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; by default NAME.yaml.")
    ] = None,
    family: Annotated[
        str,
        typer.Option(
            "--family",
            help=f"What it is at first: {', '.join(FAMILIES)}.",
            autocompletion=completion.families,
        ),
    ] = "swin",
    size: Annotated[
        str | None,
        typer.Option("--input-size", help="Image size: 224 or 896x1120 (height x width)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented spec of your own, from a preset: every field it has is explained.

    Example: hierarch new my_net --family mixer
    """
    from hierarch.spec.starter import starter

    at = sizes(size, "--input-size") if size is not None else [None]
    if len(at) > 1:
        raise SpecError(f"--input-size {size!r}: one size, such as 448 or 448x640")
    text = starter(name, family=family, input_size=at[0])
    if output is None and Path(name).name != name:
        raise SpecError(f"{name[:80]!r} is no file's name; give one with -o FILE")
    path = Path(f"{name}.yaml") if output is None else output
    if path.exists() and not force:
        raise SpecError("is there already; --force replaces it, -o names another", source=str(path))
    save(path, text)
    file, swapped = (shlex.quote(str(p)) for p in (path, path.with_stem(f"{path.stem}_swapped")))
    typer.echo(f"written: {path}\n\nThree commands to try next:")
    typer.echo(f"  hierarch show {file}\n  hierarch flops {file}")
    typer.echo(f"  hierarch swap {file} --mixer linear_attention -o {swapped}")
