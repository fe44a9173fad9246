"""The links of the repository's Markdown, as a reader of the files follows them: to files, and to
headings by the names that GitHub and MyST give to them.

Sphinx checks those between pages of the site. README, CHANGELOG and the files that pages link to
are outside of it.
"""

import re
from pathlib import Path

FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """The repository's Markdown."""
    folders = ("docs", "examples", "benchmarks", "recipes", "specs")
    return [*root.glob("*.md"), *(p for folder in folders for p in root.glob(f"{folder}/**/*.md"))]


def broken(root: Path) -> list[str]:
    """Each link that leads nowhere, with its place and the reason."""
    return [problem for page in sorted(pages(root)) for problem in _broken(page, root)]


def _broken(page: Path, root: Path) -> list[str]:
    text = FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text("utf-8"))
    problems = []
    for found in LINK.finditer(text):
        if reason := _reason(found[1], page, root):
            line = text.count("\n", 0, found.start()) + 1
            problems.append(f"{page.relative_to(root)}:{line}: {found[1]}: {reason}")
    return problems


def _reason(link: str, page: Path, root: Path) -> str:
    """Why a link leads nowhere, or ""."""
    path, _, anchor = link.partition("#")
    if re.match(r"\w+:", path):
        return ""
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(root.resolve()):
        return "outside of the repository"
    if not target.exists():
        return "no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8")):
        return "no such heading"
    return ""


def anchors(text: str) -> set[str]:
    """The names of a page's headings."""
    return {anchor(heading) for heading in HEADING.findall(FENCE.sub("", text))}


def anchor(heading: str) -> str:
    """The name of a heading: its words in lower case, without marks, joined by hyphens.

    >>> anchor("`hierarch` on a *GPU*, and [more](a.md)")
    'hierarch-on-a-gpu-and-more'
    """
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
