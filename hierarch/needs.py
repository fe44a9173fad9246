"""The optional packages: each missing one is one line, with the command to install it.

This is the one place that asks for them; nothing else catches their absence.
"""

from __future__ import annotations

from importlib.util import find_spec

from hierarch.errors import MissingPackageError


def require(*packages: str, extra: str = "train") -> None:
    """Raise `MissingPackageError` for the first of these packages that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingPackageError(
                f"this needs the package {package}: pip install 'hierarch-vision[{extra}]'"
            )
