"""The command line. It reads options, calls the library, and prints; torch is imported late."""

from __future__ import annotations

import sys

import typer

from hierarch.cli.bench import bench
from hierarch.cli.common import version
from hierarch.cli.convert import convert
from hierarch.cli.evaluate import evaluate, predict
from hierarch.cli.flops import flops
from hierarch.cli.inspect import mixers, schema, show, validate
from hierarch.cli.swap import swap
from hierarch.cli.train import train
from hierarch.errors import HierarchError

app = typer.Typer(
    name="hierarch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    flops,
    bench,
    show,
    validate,
    swap,
    convert,
    train,
    evaluate,
    predict,
    mixers,
    schema,
):
    app.command()(command)


@app.callback(invoke_without_command=False)
def root(version: version = False) -> None:
    """Hierarchical vision backbones as data: specs in YAML, their cost proved.

    A SPEC is a YAML file, or the name of a preset such as swin_tiny.
    """


def main() -> None:
    """The entry point. A mistake of the user's is a message on stderr and exit status 2."""
    try:
        app()
    except HierarchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
