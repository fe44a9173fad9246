"""Docstrings for Sphinx: plain prose with names in `backticks`, as the library writes them.

They are neither Google's nor NumPy's style, so napoleon would have nothing to do. What reST has to
be told is that a name in backticks is code, and a link where it is a public one.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import hierarch

API = Path(__file__).resolve().parent / "api"
NAME = re.compile(r"(?<!`)`([^`]+)`(?!`)")
DIRECTIVE = re.compile(r"^\.\. (?:auto(?:function|class|exception|data)|py:data):: (\S+)$", re.M)


def documented() -> dict[str, Path]:
    """Every name of the reference, and its page."""
    pages = sorted(API.glob("*.md"))
    return {name: page for page in pages for name in DIRECTIVE.findall(page.read_text("utf-8"))}


CLASSES = {
    name.rpartition(".")[2]: name
    for name in documented()
    if re.search(r"\.[A-Z]\w*[a-z]\w*$", name)
}
"""The full names of classes and exceptions, by the last part of each."""


def find(name: str) -> Any:
    """What a name such as "hierarch.report.text" is of, which may be a module."""
    module, _, attribute = name.rpartition(".")
    found = import_module(module)
    return getattr(found, attribute) if hasattr(found, attribute) else import_module(name)


def example(name: str, page: Path) -> str | None:
    """The example of a name, or None: in its docstring, or, of what has none, such as a type's
    name, in the first block of Python on its page that mentions it."""
    found = find(name)
    if inspect.isclass(found) or inspect.isfunction(found):
        text = found.__doc__ or ""
        return text[text.index(">>>") :] if ">>>" in text else None
    short = name.rpartition(".")[2]
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return next((block for block in blocks if re.search(rf"\b{short}\b", block)), None)


def marked(line: str) -> str:
    """A line of a docstring with its names in backticks as code, and as links where they are those
    of `hierarch`, begin with it, or are of classes in the reference."""
    return NAME.sub(_marked, line)


def _marked(found: re.Match[str]) -> str:
    name = found[1]
    if name in hierarch.__all__:
        return f":py:obj:`~hierarch.{name}`"
    if name in CLASSES:
        return f":py:obj:`~{CLASSES[name]}`"
    if re.fullmatch(r"hierarch(\.\w+)+", name):
        return f":py:obj:`{name}`"
    return f"``{name}``"


def process_docstring(app, what, name, obj, options, lines):
    """Sphinx's event: change a docstring's lines in place. Examples stay as they are."""
    in_example = False
    for i, line in enumerate(lines):
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if not in_example:
            lines[i] = marked(line)


def process_signature(app, what, name, obj, options, signature, returns):
    """Sphinx's event: a spec's fields are listed below it, with what they say, rather than in its
    signature; and a protocol is never called."""
    if isinstance(obj, type) and (
        issubclass(obj, BaseModel) or getattr(obj, "_is_protocol", False)
    ):
        return "", None
    return None


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
