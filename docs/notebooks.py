"""Notebooks as pages: a parser for Sphinx, which turns their cells into MyST.

It is the few lines that this site needs of myst-nb or nbsphinx, which bring Jupyter with them: a
notebook's text, code and kept outputs. Sphinx executes nothing; tests/test_site.py does, and
compares what comes out with what is kept.

    python docs/notebooks.py        execute every notebook, and keep its outputs
"""

import json
from pathlib import Path

from myst_parser.parsers.sphinx_ import MystParser

DOCS = Path(__file__).resolve().parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SECONDS = 300
"""The longest that a cell may take."""


class NotebookParser(MystParser):
    """Jupyter's notebooks, format 4."""

    supported = ("notebook",)

    def parse(self, inputstring, document):
        super().parse(page(json.loads(inputstring)), document)


def page(notebook: dict) -> str:
    """The text of a notebook as MyST."""
    return "\n\n".join(part for cell in notebook["cells"] for part in parts(cell)) + "\n"


def parts(cell: dict) -> list[str]:
    """A cell's text; or its code, and what that printed, returned and drew."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [fence("python", source), *map(shown, cell["outputs"])]


def shown(output: dict) -> str:
    """One output of a cell."""
    png = output.get("data", {}).get("image/png")
    if png is None:
        return fence("text", text(output))
    return f"![{text(output)}](data:image/png;base64,{''.join(png).strip()})"


def text(output: dict) -> str:
    """What an output says, in words."""
    return "".join(output["text"] if "text" in output else output["data"]["text/plain"])


def fence(language: str, body: str) -> str:
    """A fenced block."""
    return f"````{language}\n{body.rstrip()}\n````"


def execute(path: Path) -> dict:
    """A notebook with the outputs that its cells have now, run from top to bottom in its folder.

    Raises nbclient's `CellExecutionError`.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": SECONDS, "kernel_name": KERNEL["name"], "record_timing": False}
    NotebookClient(notebook, resources={"metadata": {"path": path.parent}}, **options).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = told(cell.outputs)
    notebook.metadata = {"kernelspec": KERNEL}
    return notebook


def told(outputs: list) -> list:
    """The outputs without what went to stderr, such as other libraries' warnings, and with what was
    printed in one piece, however the kernel sent it."""
    kept: list = []
    for output in outputs:
        if output.output_type != "stream":
            kept.append(output)
        elif output.name == "stdout":
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
            else:
                kept.append(output)
    return kept


def difference(kept: dict, run: dict) -> str:
    """The first cell that says something else than what is kept, or ""; of pictures, whether there
    is one."""
    for i, (old, new) in enumerate(zip(kept["cells"], run["cells"], strict=True), 1):
        said, says = ("".join(map(text, cell.get("outputs", ()))) for cell in (old, new))
        if said != says:
            return f"cell {i}: {said!r} is kept, and it says {says!r}"
    return ""


def setup(app):
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)


if __name__ == "__main__":
    import nbformat

    for path in sorted(DOCS.glob("*.ipynb")):
        nbformat.write(execute(path), path)
