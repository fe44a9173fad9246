"""Runs the commands in the fences of README and docs, and compares their outputs.

A `console` fence has commands, each on a line after "$ ", with its expected stdout below it. A line
"..." matches any number of lines. A fence of YAML or Python that starts with a comment such as
"# my_net.yaml" is saved under that name, for the commands and the Python after it.
"""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]

FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
FILE_NAME = re.compile(r"# ([\w-]+\.(?:yaml|py))\n")


@contextmanager
def workplace() -> Iterator[None]:
    """Context with a temporary working directory, which has copies of `specs` and `examples`."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("specs", "examples"):
            shutil.copytree(ROOT / name, Path(folder, name))
        with chdir(folder):
            yield


def run(command: str, **environment: str) -> str:
    """The stdout of a shell command. Raises `RuntimeError` if it fails.

    `hierarch` alone, without a pipe, runs in this process: a new one would import torch each time.
    """
    plain = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR", "NO_COLOR")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{plain['PATH']}"
    environment = plain | {"PATH": path, "HF_HUB_OFFLINE": "1"} | environment
    words = shlex.split(command)
    if words[0] == "hierarch" and not {*command} & {*"|;<>&$*"}:
        status, out, err = _here(words, environment)
    else:
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        status, out, err = done.returncode, done.stdout, done.stderr
    if status:
        raise RuntimeError(f"$ {command}\nexit status {status}\n{err}")
    return out


def _here(words: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line of hierarch, run in this process."""
    from hierarch.cli import main

    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.dict(os.environ, environment, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return status, out.getvalue(), err.getvalue()


def save(body: str) -> None:
    """Write a fence to the file that its first line names, if it names one."""
    if found := FILE_NAME.match(body):
        Path(found[1]).write_text(body, encoding="utf-8")


def lines(text: str) -> list[str]:
    """The lines of an output, without trailing spaces and trailing empty lines."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def matches(expected: str, printed: str) -> bool:
    """Whether an output matches the expected one."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in lines(expected)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines(printed))) is not None


def check(body: str) -> str | None:
    """The first command of a `console` fence whose output differs, as a message; None if none."""
    for found in COMMAND.finditer(body):
        printed = run(found["command"])
        if not matches(found["output"], printed):
            return f"$ {found['command']}\nprints\n{printed}\nand the text says\n{found['output']}"
    return None


def refreshed(document: str) -> str:
    """A document with the outputs in its `console` fences replaced by the current ones."""

    def fence(found: re.Match[str]) -> str:
        if found["language"] in ("yaml", "python"):
            save(found["body"])
        if found["language"] != "console":
            return found[0]
        return f"```console\n{COMMAND.sub(command, found['body'])}```"

    def command(found: re.Match[str]) -> str:
        printed = run(found["command"])
        if matches(found["output"], printed):
            return found[0]
        return f"$ {found['command']}\n" + "".join(
            f"{line}\n" for line in shortened(lines(printed), like=lines(found["output"]))
        )

    with workplace():
        return FENCE.sub(fence, document)


def shortened(printed: list[str], *, like: list[str]) -> list[str]:
    """An output shortened by "..." as the older one is, with as many lines before and after it."""
    if "..." not in like:
        return printed
    before = like.index("...")
    after = len(like) - before - 1
    return [*printed[:before], "...", *printed[len(printed) - after :]]
