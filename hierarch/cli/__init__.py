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
from hierarch.cli.completion import whole_words
from hierarch.cli.convert import convert
from hierarch.cli.evaluate import evaluate, predict
from hierarch.cli.export import export
from hierarch.cli.flops import flops
from hierarch.cli.importing import import_
from hierarch.cli.inspect import mixers, schema, show, validate
from hierarch.cli.new import new
from hierarch.cli.plot import plot
from hierarch.cli.report import report
from hierarch.cli.swap import swap
from hierarch.cli.train import train
from hierarch.errors import HierarchError
from hierarch.spec.plugins import add_plugins

PANELS = {
    "Describe and see": (new, show, validate, swap, mixers, schema),
    "Measure": (flops, compare, bench, plot, report),
    "Train": (train, evaluate, predict, ablate),
    "Weights and files": (convert, export, import_),
}
"""The commands, as --help groups them."""
FIRST = """\
Vision backbones from YAML, their cost claimed and counted.

Three commands to try:
  hierarch show swin_tiny     the network, stage by stage
  hierarch flops swin_tiny    its cost: linear in the area?
  hierarch new my_net         a commented spec of your own

All commands:                 hierarch --help
Completion with the Tab key:  hierarch --install-completion
"""

app = typer.Typer(
    name="hierarch",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for command in commands:  # import_, since import is a word of Python's
        app.command(command.__name__.rstrip("_"), rich_help_panel=panel)(command)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
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
    if context.invoked_subcommand is None:
        typer.echo(FIRST, nl=False)


def main() -> None:
    """The entry point. A user error is a message on stderr, with exit status 2."""
    try:
        with whole_words():
            app(prog_name="hierarch")
    except HierarchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
