"""`import`: another library's config as a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierarch.cli.common import save


def import_(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="A config of Microsoft's Swin (YAML) or OpenMMLab (Python)."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write, instead of stdout.")
    ] = None,
) -> None:
    """Write the spec of a config of Microsoft's Swin or of OpenMMLab.

    OpenMMLab's are those of mmdetection, mmsegmentation and mmpretrain. Nothing in a config runs.

    Example: hierarch import swin_tiny_patch4_window7_224.yaml > swin.yaml
    """
    from hierarch.importing.imported import import_config

    text = import_config(config).yaml()
    if output is None:
        typer.echo(text, nl=False)
    else:
        save(output, text)
