"""Virtual environments from which nothing of the checkout can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path, **env: object) -> subprocess.CompletedProcess[str]:
    """What a command gives in a folder, with further environment variables."""
    words = [str(word) for word in command]
    environment = {
        **os.environ,
        "PYTHONPATH": "",
        **{key: str(value) for key, value in env.items()},
    }
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


def output(*command: object, cwd: Path, **env: object) -> str:
    """The stdout of a command that has to succeed."""
    done = run(*command, cwd=cwd, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path) -> Path:
    """The programs of a new environment with what hierarch needs, and without hierarch.

    The packages are those of the tests' own environment, behind the new one's on the path. An
    editable hierarch is not among them: its .pth file is read in its own environment alone.
    """
    output(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    programs = folder / "bin"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = output(programs / "python", "-c", where, cwd=folder).strip()
    Path(own, "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    assert run(programs / "python", "-c", "import hierarch.cli", cwd=folder).returncode == 1
    return programs
