"""Sphinx: `pip install -e '.[docs]'`, then `sphinx-build -W docs build/docs`."""

import hierarch

project = "hierarch"
author = "the hierarch authors"
version = release = hierarch.__version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"hierarch {release}"
myst_heading_anchors = 3
