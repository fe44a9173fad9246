"""The command line, run in the tests' own process."""

import sys

import pytest

from hierarch.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line: (exit status, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["hierarch", *map(str, args)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run
