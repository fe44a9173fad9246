"""Text and tables as LaTeX, for a paper: nothing in them is taken for a command.

Tables are those of the package booktabs. Letters and signs that pdfLaTeX does not know without a
package are written as it knows them, as far as the library's reports have them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hierarch.report.tables import Row, holds_numbers

ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "→": r"$\rightarrow$",
        "×": r"$\times$",
        "·": r"$\cdot$",
        "±": r"$\pm$",
        "√": r"$\surd$",
        "Σ": r"$\Sigma$",
        "φ": r"$\phi$",
        "²": r"$^2$",
        "³": r"$^3$",
        "ᵀ": r"$^\top$",
        "₂": r"$_2$",
        "ₗ": r"$_l$",
        "⌈": r"$\lceil$",
        "⌉": r"$\rceil$",
    }
)


def escaped(text: str) -> str:
    r"""Text in one line, with every sign that LaTeX gives a meaning written as itself.

    >>> escaped("swin_tiny: 50 % of {x}")
    'swin\\_tiny: 50 \\% of \\{x\\}'
    """
    return " ".join(text.split()).translate(ESCAPES)


def booktabs(rows: Sequence[Row]) -> str:
    """A table of one or more rows that share their columns; numbers are right-aligned."""
    columns = list(rows[0])
    places = "".join("r" if holds_numbers(rows, column) else "l" for column in columns)
    header, *body = (
        f"  {' & '.join(map(escaped, cells))} \\\\"
        for cells in (columns, *(row.values() for row in rows))
    )
    opening, closing = rf"\begin{{tabular}}{{{places}}}", r"\end{tabular}"
    rules = (r"  \toprule", r"  \midrule", r"  \bottomrule")
    return "\n".join([opening, rules[0], header, rules[1], *body, rules[2], closing])
