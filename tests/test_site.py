"""The docs site: built strictly, whole without a network, and read in a real browser.

The site is built once. Each check has a twin that shows it fire.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import links
import nbformat
import notebooks
import pytest
from nbclient.exceptions import CellExecutionError
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as EC
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STRICT = ("-W", "--keep-going", "-n", "-q", "-b", "html")
MINUTES = 3


def sphinx(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """A strict build with the settings of docs/conf.py."""
    command = [sys.executable, "-m", "sphinx", *STRICT, "-c", str(DOCS), str(source), str(out)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("site") / "html"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    built = sphinx(DOCS, out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert built.returncode == 0, built.stderr
    # of one process, so that whatever else the machine does takes no part in it
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60 * MINUTES
    return out


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("[a page](nowhere.md)", "'nowhere.md'"),
        ("[a heading](index.md#nowhere)", "nowhere"),
        ("[a file](../nowhere.yaml)", "nowhere.yaml"),
        ("```{eval-rst}\n:py:func:`hierarch.nowhere`\n```", "hierarch.nowhere"),
        ("```{eval-rst}\n.. autofunction:: hierarch.nowhere\n```", "nowhere"),
    ],
)
def test_a_broken_reference_fails_the_build(tmp_path, line, warning):
    shutil.copytree(DOCS / "_static", tmp_path / "_static")
    (tmp_path / "index.md").write_text(f"# A page\n\n{line}\n", encoding="utf-8")
    built = sphinx(tmp_path, tmp_path / "out")
    assert built.returncode == 1
    assert warning in built.stderr


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom_and_says_what_is_kept(path):
    kept = nbformat.read(path, as_version=4)
    assert notebooks.difference(kept, notebooks.execute(path)) == ""


def test_a_notebook_that_says_something_else_is_found(tmp_path):
    path = tmp_path / "a.ipynb"
    kept = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1 + 1)\n2 * 3")])
    nbformat.write(kept, path)
    run = notebooks.execute(path)
    assert notebooks.difference(run, run) == ""
    assert notebooks.difference(kept, run) == "cell 1: '' is kept, and it says '2\\n6'"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute(path)


def test_every_link_of_the_repository_leads_somewhere():
    assert links.broken(ROOT) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[gone](docs/gone.md)", "README.md:3: docs/gone.md: no such file"),
        ("[a part](docs/a.md#two)", "README.md:3: docs/a.md#two: no such heading"),
        ("![a picture](gone.svg)", "README.md:3: gone.svg: no such file"),
        ("[out](../a.md)", "README.md:3: ../a.md: outside of the repository"),
        ("[here](#three)", "README.md:3: #three: no such heading"),
    ],
)
def test_a_broken_link_is_found(tmp_path, line, problem):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# `One`, and *one* more\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{line}\n", encoding="utf-8")
    assert links.broken(tmp_path) == [problem]
    right = "[a](docs/a.md) [b](docs/a.md#one-and-one-more) [c](#title)\n```python\n[d](e)\n```\n"
    readme.write_text(f"# Title\n\n{right}", encoding="utf-8")
    assert links.broken(tmp_path) == []


class Page(HTMLParser):
    """What a page loads, where it links to, and the ids that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "link":
            if given.get("rel") not in ("canonical", "prev", "next", "index", "search"):
                self.loads.append(given.get("href", ""))
        else:
            self.loads += [
                given[name] for name in ("src", "srcset", "data", "poster") if name in given
            ]


def loaded(file: Path) -> list[str]:
    """What a file of the site has a browser load. What its scripts load, only a browser sees."""
    text = file.read_text("utf-8")
    if file.suffix == ".html":
        styles = "".join(re.findall(r"<style.*?</style>", text, re.DOTALL))
        return Page(text).loads + _of_style(styles)
    return _of_style(text)


def _of_style(text: str) -> list[str]:
    imports = re.findall(r"@import\s+[\"']([^\"']+)", text)
    return imports + re.findall(r"url\(\s*[\"']?([^\"')]+)", text)


def outside(files) -> list[tuple[str, str]]:
    """Files, and what each of them loads from another place than the site."""
    return [
        (file.name, address)
        for file in files
        for address in loaded(file)
        if re.match(r"(\w+:)?//", address)
    ]


def test_nothing_is_loaded_from_outside(site):
    files = [file for file in site.rglob("*") if file.suffix in (".html", ".css", ".svg")]
    assert len(files) > 30
    assert outside(files) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/a.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/a.css">'),
        ("a.html", '<style>@import "https://fonts.example/a.css";</style>'),
        ("a.css", 'src: url("https://fonts.example/a.woff")'),
        ("a.svg", "<style>src: url(https://fonts.example/a.woff)</style>"),
    ],
)
def test_what_is_loaded_from_outside_is_found(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(outside([tmp_path / name])) == 1


def dangling(site: Path) -> list[tuple[str, str]]:
    """Pages of the site, and their links within it that lead nowhere."""
    pages = {file: Page(file.read_text("utf-8")) for file in site.rglob("*.html")}
    found = []
    for file, page in pages.items():
        for link in page.links:
            path, _, anchor = link.partition("#")
            if re.match(r"\w+:", path):
                continue
            target = (file.parent / unquote(path)).resolve() if path else file
            ids = pages[target].ids if target in pages else {unquote(anchor)}
            if not target.exists() or (anchor and unquote(anchor) not in ids):
                found.append((file.name, link))
    return found


def test_every_link_of_the_site_leads_somewhere(site):
    assert dangling(site) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html"></a><a href="#c"></a>', encoding="utf-8")
    assert dangling(tmp_path) == [("a.html", "b.html"), ("a.html", "#c")]


def test_the_site_is_searched_without_a_network(site, browser):
    browser.open(f"{(site / 'search.html').as_uri()}?q=shifted+windows")
    ended = EC.text_to_be_present_in_element((By.ID, "search-results"), "Search finished")
    WebDriverWait(browser.driver, 60).until(ended)
    found = [link.text for link in browser.find_all("#search-results ul.search li > a")]
    assert {"Complexity", "Results"} <= {*found}
    assert all(address.startswith("file:") for address in browser.requested())
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [375, 1280])
def test_every_page_is_whole_in_a_browser(site, browser, width):
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > 30
    for page in pages:
        browser.open(page, width=width)
        assert browser.overflow() == 0, page.name
        assert browser.complaints() == [], page.name
        assert all(address.startswith("file:") for address in browser.requested()), page.name
