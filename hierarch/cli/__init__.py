"""The command line: it reads options, calls the library and prints. --help imports no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hierarch.cli.ablate import ablate
from hierarch.cli.bench import bench
from hierarch.cli.common import version
from hierarch.cli.compare import compare
from hierarch.cli.convert import convert
from hierarch.cli.evaluate import evaluate, predict
from hierarch.cli.export import export
from hierarch.cli.flops import flops
from hierarch.cli.inspect import mixers, schema, show, validate
from hierarch.cli.swap import swap
from hierarch.cli.train import train
from hierarch.errors import HierarchError
from hierarch.spec.plugins import add_plugins

app = typer.Typer(
    name="hierarch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(flops, compare, bench, show, validate, swap, convert, export),
    *(train, evaluate, predict, ablate, mixers, schema),
):
    app.command()(command)


@app.callback(invoke_without_command=False)
def root(
    version: version = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin", metavar="FILE", help="Run a Python file that registers parts. Repeatable."
        ),
    ] = None,
) -> None:
    """Hierarchical vision backbones from YAML specs, with their cost claimed and counted.

    A SPEC is a YAML file, or the name of a preset such as swin_tiny.
    """
    if plugin:
        add_plugins(plugin)


def main() -> None:
    """The entry point. A user error is a message on stderr, with exit status 2."""
    try:
        app()
    except HierarchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
