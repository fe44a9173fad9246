"""Sphinx: `pip install -e '.[docs]'`, then `sphinx-build -W --keep-going -n docs build/docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import docstrings
import notebooks
from pygments.lexer import RegexLexer, bygroups, using
from pygments.lexers.shell import BashLexer
from pygments.token import Generic, Text

import hierarch

project = "hierarch"
author = "the hierarch authors"
version = release = hierarch.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["results/*/*.md"]  # tables that `hierarch ablate` wrote
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = "hierarch"
html_extra_path = ["_extra"]  # the explainer: pages that are copied as they are
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["offline.js"]
html_show_sphinx = False
html_copy_source = False
templates_path = []

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
# names of other libraries are not linked; every public one of hierarch has to be in the reference
nitpick_ignore_regex = [
    ("py:.*", r"(?!hierarch\b).*"),
    ("py:.*", r"hierarch\..*\b(_\w+|AnyPart)"),  # private, and a type variable
]


class Console(RegexLexer):
    """Commands after "$ ", and their outputs. Pygments' own takes a line that starts with "# " for
    a command of root's."""

    name = "console"
    tokens = {  # noqa: RUF012  # as Pygments has it
        "root": [(r"(\$ )(.*\n)", bygroups(Generic.Prompt, using(BashLexer))), (r".*\n", Text)]
    }


def setup(app):
    app.add_lexer("console", Console)
    docstrings.setup(app)
    notebooks.setup(app)
